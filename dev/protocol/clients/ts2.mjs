// npm @modelcontextprotocol/client 2.x; --era legacy (its default), auto or pin. Steps: see steps.py.
import { Program, main, parse } from "./steps.mjs";

const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");

const MODES = { legacy: "legacy", auto: "auto", pin: { pin: "2026-07-28" } };

class Ts2 extends Program {
  async open() {
    this.transport = new StreamableHTTPClientTransport(new URL(this.args.url), { requestInit: { headers: this.args.headers } });
    this.client = new Client(
      { name: "ts2", version: "1.0.0" },
      { capabilities: { sampling: {}, elicitation: {} }, versionNegotiation: { mode: MODES[this.args.era] } },
    );
    this.client.setRequestHandler("elicitation/create", async () => ({ action: "accept", content: { name: "Ada" } }));
    this.client.setRequestHandler("sampling/createMessage", async () => ({
      role: "assistant",
      content: { type: "text", text: "Paris" },
      model: "test",
    }));
    for (const method of ["notifications/tools/list_changed", "notifications/resources/list_changed"]) {
      this.client.setNotificationHandler(method, () => this.heardOf(method));
    }
    this.subscription = undefined;
    await this.client.connect(this.transport);
    return this.client.getNegotiatedProtocolVersion();
  }

  callTool(params, options) {
    return this.client.callTool(params, options);
  }

  /** Modern clients listen; legacy ones have their GET stream already. */
  async openStream() {
    if (this.client.getProtocolEra() === "modern") {
      this.subscription ??= await this.client.listen({ toolsListChanged: true, resourcesListChanged: true });
    }
  }

  async shut(client) {
    try {
      await this.subscription?.close();
      if (client.getProtocolEra() === "legacy") await this.transport.terminateSession();
    } finally {
      await client.close();
    }
  }
}

await main(new Ts2(parse({ era: ["legacy", "auto", "pin"] })));
