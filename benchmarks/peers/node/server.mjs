// Node's Socket.IO server, with the token verified where its documentation says: in a middleware.
import { createServer } from "node:http";

import jwt from "jsonwebtoken";
import { Server } from "socket.io";

const { BENCH_PORT, BENCH_ALGORITHM, BENCH_KEY, BENCH_ISSUER, BENCH_AUDIENCE } = process.env;
const rules = { algorithms: [BENCH_ALGORITHM], issuer: BENCH_ISSUER, audience: BENCH_AUDIENCE };

const http = createServer();
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false, serveClient: false });

io.use((socket, next) => {
  jwt.verify(socket.handshake.auth.token, BENCH_KEY, rules, (error, claims) => {
    if (!error && claims.exp === undefined) error = new Error("a token must have an end");
    if (error) return next(error);
    socket.data.claims = claims;
    next();
  });
});

io.on("connection", (socket) => {
  socket.on("echo", (text) => socket.emit("echo", text));
  socket.on("ack", (text, answer) => answer(text));
  socket.on("binary", (bytes) => socket.emit("binary", bytes));
  socket.on("broadcast", (text) => io.emit("broadcast", text));
  socket.on("join", (room, answer) => {
    socket.join(room);
    answer();
  });
  socket.on("room", (room, text) => io.to(room).emit("room", text));
});

http.listen({ port: Number(BENCH_PORT), host: "127.0.0.1", backlog: 4096 });
