"""`python -m declai.api.serve`: the gateway's HTTP server with settings from the environment."""

from __future__ import annotations

import logging
import sys

import uvicorn
from pydantic import ValidationError

from declai.api.app import create_app
from declai.api.settings import GatewaySettings
from declai.chain.settings import explain


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = GatewaySettings()
    except ValidationError as error:
        sys.exit(f"Error: wrong settings: {explain(error)}")
    except ValueError as error:
        sys.exit(f"Error: wrong settings: {error}")
    # Requests carry keys in headers and prompts in bodies: the access log, which is about neither, stays off.
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="info",
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )


if __name__ == "__main__":
    main()
