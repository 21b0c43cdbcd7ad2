// Emmett's appends, as race/work/appends.py measures the others: node appends_emmett.mjs PACKAGES URL WORK.
// Configured as https://event-driven-io.github.io/emmett/event-stores/postgresql.html does, with a connection for each writer.
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";

const [packages, url, workText] = process.argv.slice(2);
const require = createRequire(`${packages}/package.json`);
const { getPostgreSQLEventStore } = require("@event-driven-io/emmett-postgresql");
const pg = require("pg");

const STREAMS_EACH = 100;
const work = JSON.parse(workText);
const streams = work.writers * STREAMS_EACH;
const pool = new pg.Pool({ connectionString: url, max: work.writers });
const store = getPostgreSQLEventStore(url, { connectionOptions: { pool } });

const placed = (number) => ({
  type: "order.placed",
  data: {
    order: `o${number % streams}`,
    customer: `c${(number * 7919) % streams}`,
    total: String((number % 10000) / 100),
    lines: number % 9,
  },
});

const append = async (writer, turn, count) => {
  const number = writer * STREAMS_EACH + (turn % STREAMS_EACH);
  await store.appendToStream(`order-o${number}`, Array.from({ length: count }, () => placed(number)));
};

const rate = async (turns, count, warm) => {
  const all = (first, upto) =>
    Promise.all(
      Array.from({ length: work.writers }, async (_, writer) => {
        for (let turn = first; turn < upto; turn++) await append(writer, turn, count);
      }),
    );
  await all(0, warm);
  const started = performance.now();
  await all(warm, warm + turns);
  return (work.writers * turns * count) / ((performance.now() - started) / 1000);
};

await store.schema.migrate();
const singles = await rate(Math.floor(work.singles / work.writers), 1, STREAMS_EACH);
const batches = await rate(Math.floor(work.in_batches / work.batch / work.writers), work.batch, 2);
console.log(JSON.stringify({ singles, batches }));
process.exit(0);
