// Answers every request on port 8080 with the name of the host it runs on, and logs who asked.
const http = require('http');
const os = require('os');

const port = Number(process.env.PORT || 8080);

const server = http.createServer((request, response) => {
  console.log(`Received request from ${request.socket.remoteAddress}`);
  response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8' });
  response.end(`You've hit ${os.hostname()}\n`);
});

// Process 1 has no default action for these signals.
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => process.exit(0));
}

server.listen(port, () => console.log(`Kubia server starting on port ${port}`));
