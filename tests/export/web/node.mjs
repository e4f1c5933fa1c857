// node node.mjs RUNTIME JOBS → what came of each job, as JSON. A job: {folder, log} and {records}, {sync: url} or {check}.
import { readFileSync } from "node:fs";

const [runtime, jobs] = process.argv.slice(2);
const told = [];
for (const { folder, log, records, sync } of JSON.parse(readFileSync(jobs, "utf8"))) {
  try {
    const { open, fileLog } = await import(`${folder}/predict.mjs`);
    const edge = await open({ runtime, log: await fileLog(log) });
    told.push({ result: records ? await edge.predict(records) : sync ? await edge.sync(sync) : await edge.check() });
  } catch (error) {
    const { field, rule, record } = error;
    told.push({ kind: error.constructor.name, message: error.message, field, rule, record });
  }
}
process.stdout.write(JSON.stringify(told));
