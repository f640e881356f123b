// What the TypeScript client programs share; the steps and the output are those
// of steps.py, which describes them.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(process.env.MCP_GATEWAY_PROTOCOL_DIR ?? join(here, "../../../target/protocol"));

// The packages are where dev/protocol/install put them, not beside this file.
const packages = pathToFileURL(join(root, "npm/package.json")).href;
registerHooks({
  resolve: (name, context, next) =>
    next(name, name.startsWith("@modelcontextprotocol/") && context.parentURL?.startsWith(pathToFileURL(here).href)
      ? { ...context, parentURL: packages }
      : context),
});

const PROFILES = JSON.parse(readFileSync(join(here, "profiles.json"), "utf8"));

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** The common arguments; `options` maps another argument's name to its choices, the first its default. */
export function parse(options = {}) {
  const text = { type: "string" };
  const { values } = parseArgs({
    options: {
      url: text,
      steps: text,
      profile: { ...text, default: "own" },
      header: { ...text, multiple: true, default: [] },
      timeout: { ...text, default: "90" },
      ...Object.fromEntries(Object.entries(options).map(([name, choices]) => [name, { ...text, default: choices[0] }])),
    },
  });
  const wrong = Object.entries(options).find(([name, choices]) => !choices.includes(values[name]));
  if (!values.url || !values.steps || !PROFILES[values.profile] || wrong) {
    console.error("usage: --url URL --steps a,b,c [--profile own|everything] [--header 'Name: value'] [--timeout S]",
      ...Object.entries(options).map(([name, choices]) => `[--${name} ${choices.join("|")}]`));
    process.exit(2);
  }
  values.headers = Object.fromEntries(values.header.map((h) => [h.slice(0, h.indexOf(":")).trim(), h.slice(h.indexOf(":") + 1).trim()]));
  return values;
}

/** One client program. A subclass has open(), shut() and openStream(); `this.client` is an SDK Client. */
export class Program {
  constructor(args) {
    this.args = args;
    this.profile = PROFILES[args.profile];
    this.heard = new Set();
    this.onAnnounced = () => {};
    this.cancelledBefore = 0;
    this.lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  }

  heardOf(method) {
    this.heard.add(method);
    if (method === this.profile.stream?.method) this.onAnnounced();
  }

  tool(step) {
    const entry = this.profile[step];
    if (!entry) throw new Error(`profile ${this.args.profile} has no tool for ${step}`);
    const unique = randomUUID();
    const given = Object.entries(entry.arguments).map(([k, v]) => [k, typeof v === "string" ? v.replace("$unique", unique) : v]);
    return { name: entry.tool, arguments: Object.fromEntries(given) };
  }

  async call(step, options) {
    const result = await this.callTool(this.tool(step), options);
    const text = result.content.map((part) => part.text ?? "").join("");
    return [text, result.isError === true];
  }

  async expect(step, options) {
    const [text, error] = await this.call(step, options);
    const wanted = this.profile[step].expect;
    if (error || (wanted !== undefined && !text.includes(wanted))) {
      throw new Error(`${error ? "error result" : "unexpected result"}: ${text.slice(0, 300)}`);
    }
    return text;
  }

  steps = {
    connect: async () => {
      // An earlier client object may have lost its session: leaving it may fail.
      await this.steps.close().catch(() => {});
      return this.open();
    },
    close: async () => {
      const { client } = this;
      this.client = undefined;
      if (client) await this.shut(client);
      return "closed";
    },
    list: async () => {
      const names = (await this.client.listTools()).tools.map((tool) => tool.name);
      if (!names.includes(this.tool("call").name)) throw new Error(`tools are ${names}`);
      return `${names.length} tools`;
    },
    progress: async () => {
      let seen = 0;
      await this.expect("progress", { onprogress: () => seen++ });
      if (seen === 0) throw new Error("no progress notification");
      return `${seen} progress notifications`;
    },
    cancel: async () => {
      this.cancelledBefore = await this.cancellations();
      const abort = new AbortController();
      let began = 0;
      const onprogress = () => {
        began ||= performance.now();
        abort.abort("the test cancels");
      };
      const outcome = await this.call("cancel", { onprogress, signal: abort.signal }).then(
        ([text]) => `answered: ${text}`,
        (error) => (abort.signal.aborted ? undefined : `failed: ${error.message}`),
      );
      if (outcome) throw new Error(`ended before it was cancelled: ${outcome}`);
      return `ended ${Math.round(performance.now() - began)} ms after cancel`;
    },
    cancelled: async () => {
      this.tool("cancelled");
      for (const giveUp = performance.now() + 5000; performance.now() < giveUp; await sleep(100)) {
        if ((await this.cancellations()) > this.cancelledBefore) return "the server stopped";
      }
      throw new Error("the server saw no cancellation");
    },
    big: async () => {
      const text = await this.expect("big");
      if (text.length !== this.profile.big.bytes) throw new Error(`${text.length} bytes`);
      return `${text.length} bytes`;
    },
    stream: async () => {
      await this.openStream?.();
      for (let attempt = 1; attempt <= 30; attempt++) {
        const arrived = new Promise((done) => (this.onAnnounced = () => done(true)));
        await this.expect("stream");
        if (await Promise.race([arrived, sleep(500)])) return `announcement ${attempt} arrived`;
      }
      throw new Error(`no announcement arrived; notifications heard: ${[...this.heard]}`);
    },
    pause: async () => {
      const { done, value } = await this.lines.next();
      if (done) throw new Error("stdin was closed");
      return value.trim();
    },
  };

  async cancellations() {
    return this.profile.cancelled ? Number((await this.call("cancelled"))[0]) : 0;
  }

  run(step) {
    const own = this.steps[step === "get-stream" ? "stream" : step];
    return own ? own() : this.expect(step);
  }
}

function deadline(seconds, work) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`took longer than ${seconds} s`)), 1000 * seconds);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

const told = (error) => {
  const code = error?.code === undefined ? "" : ` [${error.code}]`;
  const cause = error?.cause?.message ? `: ${error.cause.message}` : "";
  return `${error?.name ?? "Error"}${code}: ${error?.message ?? error}${cause}`;
};

const line = (values) => process.stdout.write(JSON.stringify(values) + "\n");

/** Runs every step in order, stops at the first that does not do what it should, and ends the process. */
export async function main(program) {
  let good = true;
  for (const item of program.args.steps.split(",")) {
    const mustFail = item.startsWith("!");
    const step = item.replace(/^!/, "");
    if (step === "pause") line({ step, waiting: true });
    const began = performance.now();
    let detail;
    let failed = false;
    try {
      detail = await deadline(Number(program.args.timeout), program.run(step));
    } catch (error) {
      failed = true;
      detail = told(error);
    }
    good = failed === mustFail;
    line({ step: item, ok: good, detail, ms: Math.round(performance.now() - began) });
    if (!good) break;
  }
  await deadline(10, program.steps.close()).catch(() => {});
  process.exit(good ? 0 : 1);
}
