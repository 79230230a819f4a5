// A server of HTTP/1 that sends trailers to those who say that they read them, and tells in them which ones came with the request.
import { createServer } from "node:http";

const [host, port] = process.argv[2].split(":");
const server = createServer(async (request, response) => {
  let length = 0;
  for await (const piece of request) length += piece.length;
  const reads = /\btrailers\b/.test(request.headers.te ?? "");
  response.setHeader("Trailer", "X-Sum");
  response.write(`te: ${request.headers.te}, connection: ${request.headers.connection}, trailer: ${request.headers.trailer}`);
  if (reads) {
    const heard = JSON.stringify(request.trailers);
    response.addTrailers({ "X-Sum": String(length), "X-Heard": heard, "Set-Cookie": "a=b", "Content-Type": "text/html", Age: "1" });
  }
  response.end();
});
server.listen(Number(port), host, () => console.log("listening"));
