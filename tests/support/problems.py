"""Assertions about problem documents."""

import httpx


def status_and_code(answer: httpx.Response) -> tuple[int, str | None]:
    """The code is None if the response is no problem document."""
    return answer.status_code, answer.json().get("code")


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    body = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["type"] == f"urn:dialtone:problem:{code}"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
