"""Schemathesis reads the OpenAPI document and tries it, as a user and as an operator: no 5xx, no undocumented answer."""

import os
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS

from app.vending.policy import ADMIN_SCOPE
from tests.stage import Service, Telnyx, service_in_front_of, token
