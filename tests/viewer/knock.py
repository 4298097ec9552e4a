"""Knocks at a running viewer as a program would: python knock.py PORT COOKIE SECRET ORIGIN; prints JSON of what comes back.

Runs in the viewer's own environment, whose libraries speak its protocol. "status" is that of the WebSocket's handshake, "answers"
are what follows on a greeting with the secret and a request for the page's state; "pushed" counts messages nobody asked for.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aiohttp
import msgpack
from wslink.chunking import UnChunker, generate_chunks

PATIENCE = 1.5  # seconds of silence after which no more is expected
REQUESTS = (("system:c0:0", "wslink.hello"), ("rpc:c0:1", "trame.state.get"))


async def _knock(port: str, cookie: str, secret: str, origin: str) -> dict[str, Any]:
    headers = {"Cookie": cookie} | ({"Origin": origin} if origin else {})
    found: dict[str, Any] = {"status": 101, "answers": {}, "pushed": 0}
    async with aiohttp.ClientSession() as session:
        try:
            socket = await session.ws_connect(f"http://127.0.0.1:{port}/ws", headers=headers, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            return {"status": error.status, "answers": {}, "pushed": 0}
        for identity, method in REQUESTS:
            message = {"wslink": "1.0", "id": identity, "method": method, "args": [{"secret": secret}] * ("hello" in method)}
            for chunk in generate_chunks(msgpack.packb(message | {"kwargs": {}}), 4 * 2**20):
                await socket.send_bytes(chunk)
        parts = UnChunker()
        parts.set_max_message_size(2**30)
        while True:
            try:
                received = await socket.receive(PATIENCE)
            except TimeoutError:
                break
            if received.type is not aiohttp.WSMsgType.BINARY:
                break
            answer = parts.process_chunk(received.data)
            if answer is None:
                continue
            if answer.get("id") in dict(REQUESTS):
                found["answers"][dict(REQUESTS)[answer["id"]]] = answer.get("error", {}).get("message") or "served"
            else:
                found["pushed"] += 1
    return found


def main() -> None:
    """Knock once."""
    sys.stdout.write(json.dumps(asyncio.run(_knock(*sys.argv[1:5]))))


if __name__ == "__main__":
    main()
