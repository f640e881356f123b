// Makes a Node server that names no address listen on loopback only:
//   node --import ./loopback.mjs SERVER
// server-everything calls listen(PORT), which would open it to the network.
import net from "node:net";

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
  const port = args[0];
  if ((typeof port === "number" || /^\d+$/.test(port)) && typeof args[1] !== "string") {
    args.splice(1, 0, process.env.HOST ?? "127.0.0.1");
  }
  return listen.apply(this, args);
};
