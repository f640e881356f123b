// npm @modelcontextprotocol/sdk 1.x client: streamable HTTP, or --transport sse. Steps: see steps.py.
import { Program, main, parse } from "./steps.mjs";

const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
const { SSEClientTransport } = await import("@modelcontextprotocol/sdk/client/sse.js");
const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { CreateMessageRequestSchema, ElicitRequestSchema } = await import("@modelcontextprotocol/sdk/types.js");

class Ts1 extends Program {
  async open() {
    const Transport = this.args.transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
    this.transport = new Transport(new URL(this.args.url), { requestInit: { headers: this.args.headers } });
    this.client = new Client({ name: "ts1", version: "1.0.0" }, { capabilities: { sampling: {}, elicitation: {} } });
    this.client.setRequestHandler(ElicitRequestSchema, async () => ({ action: "accept", content: { name: "Ada" } }));
    this.client.setRequestHandler(CreateMessageRequestSchema, async () => ({
      role: "assistant",
      content: { type: "text", text: "Paris" },
      model: "test",
    }));
    this.client.fallbackNotificationHandler = async ({ method }) => this.heardOf(method);
    await this.client.connect(this.transport);
    return this.transport.protocolVersion ?? "connected";
  }

  callTool(params, options) {
    return this.client.callTool(params, undefined, options);
  }

  async shut(client) {
    try {
      await this.transport.terminateSession?.();
    } finally {
      await client.close();
    }
  }
}

await main(new Ts1(parse({ transport: ["http", "sse"] })));
