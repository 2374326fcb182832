// A websocket client made with the library `ws` for Node.js. tests/websocket_libraries.rs starts it and reads what it says.
const { once } = require("events");
const WebSocket = require("ws");

const say = (...what) => console.log(JSON.stringify(what));

async function open(url, options) {
    const socket = new WebSocket(url, options);
    await once(socket, "open");
    return socket;
}

async function received(socket) {
    const [data, isBinary] = await once(socket, "message");
    return isBinary ? data : data.toString();
}

async function isEchoed(socket, message) {
    socket.send(message);
    const answer = await received(socket);
    return typeof message === "string" ? answer === message : message.equals(answer);
}

async function main(echo, channel, refused) {
    let socket = await open(echo);
    say("extensions", socket.extensions.split(",").filter(Boolean));
    for (const message of ["text €", Buffer.from([0, 255]), "long €".repeat(50_000)])
        say("echo", await isEchoed(socket, message));
    socket.send("in ", { fin: false });
    socket.send("three ", { fin: false });
    socket.send("fragments", { fin: true });
    say("fragments", await received(socket));
    socket.ping("are you there");
    const [payload] = await once(socket, "pong");
    if (payload.toString() === "are you there") say("pong");
    socket.close(4000, "enough");
    const [code, reason] = await once(socket, "close");
    say("closed", code, reason.toString());

    const foreigner = new WebSocket(refused, { origin: "https://elsewhere.example" });
    foreigner.on("error", () => {});
    const [, answer] = await once(foreigner, "unexpected-response");
    say("refused", answer.statusCode);
    foreigner.terminate();

    socket = await open(echo, { perMessageDeflate: false });
    say("extensions", socket.extensions.split(",").filter(Boolean));
    say("echo", await isEchoed(socket, "plain"));
    socket.close();

    socket = await open(channel);
    socket.on("message", (data) => say("got", data.toString()));
    socket.on("close", (code, reason) => say("closed", code, reason.toString()));
    say("ready");
}

main(...process.argv.slice(2));
