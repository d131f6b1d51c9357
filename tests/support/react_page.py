"""The page with React of the client's tests (`clients/js/test/pages/react.jsx`), for tests with a real browser."""

import json
import subprocess
from pathlib import Path

from app.sandbox.softphone.server import CLIENT
from tests.support.browser import PageServers, token_for

COMPONENTS = ["WithProvider", "WithEffect"]
ROUNDS = 20


def bundle_react_page(folder: Path) -> str:
    """The script of the page, bundled for development: StrictMode mounts twice only there."""
    bundle = folder / "page.js"
    command = ["npx", "--no-install", "esbuild", "test/pages/react.jsx", "--bundle", "--format=iife", "--jsx=automatic"]
    options = ["--log-level=warning", '--define:process.env.NODE_ENV="development"', f"--outfile={bundle}"]
    subprocess.run([*command, *options], cwd=CLIENT, check=True)
    return bundle.read_text()


async def react_script(servers: PageServers, bundle: str, user: str) -> str:
    """The bundled script, after the settings that it reads."""
    token, config = await token_for(servers, user)
    settings = json.dumps({"service": config["service"], "token": token})
    return f"globalThis.config = {settings};\n{bundle}"
