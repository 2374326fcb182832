# A websocket client made with the Python library `websockets`. tests/websocket_libraries.rs starts it and reads what it says.
import asyncio
import json
import sys

import websockets


def say(*what):
    print(json.dumps(what), flush=True)


async def main(echo, channel, refused):
    async with websockets.connect(echo, max_size=None) as socket:
        say("extensions", [extension.name for extension in socket.protocol.extensions])
        for message in ["text €", b"\x00\xff", "long €" * 50_000]:
            await socket.send(message)
            say("echo", await socket.recv() == message)
        await socket.send(["in ", "three ", "fragments"])
        say("fragments", await socket.recv())
        await asyncio.wait_for(await socket.ping(b"are you there"), 10)
        say("pong")
        await socket.close(4000, "enough")
        say("closed", socket.close_code, socket.close_reason)
    try:
        await websockets.connect(refused, origin="https://elsewhere.example")
    except websockets.InvalidStatus as error:
        say("refused", error.response.status_code)
    async with websockets.connect(echo, compression=None) as socket:
        say("extensions", [extension.name for extension in socket.protocol.extensions])
        await socket.send("plain")
        say("echo", await socket.recv() == "plain")
    async with websockets.connect(channel) as socket:
        say("ready")
        try:
            while True:
                say("got", await socket.recv())
        except websockets.ConnectionClosed as error:
            say("closed", error.rcvd.code, error.rcvd.reason)


asyncio.run(main(*sys.argv[1:]))
