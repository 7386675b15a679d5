"""``python -m tests.drill.relay PORT ADDRESS``: connections to PORT on loopback go to ADDRESS:PORT.

The venues speak plain HTTP, which FKS speaks with loopback only; this carries it out of a host's
network. What was taken in is delivered, however late, also when its sender has gone away.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

BLOCK = 1 << 16


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await source.read(BLOCK):
            target.write(block)
            await target.drain()
        target.write_eof()


async def main(port: int, address: str) -> None:
    async def serve(inner: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            outer, out = await asyncio.open_connection(address, port)
            await asyncio.gather(carry(inner, out), carry(outer, back))
            out.close()
        back.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
