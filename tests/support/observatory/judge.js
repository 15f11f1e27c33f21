// Asks MDN's Observatory and Google's csp_evaluator about a page: HOST ADDRESS PATH.
import dns from "node:dns";
import evaluator from "csp_evaluator";
import parser from "csp_evaluator/dist/parser.js";

const [host, address, path] = process.argv.slice(2);
dns.lookup = (_, options, done) =>
  options.all ? done(null, [{ address, family: 4 }]) : done(null, address, 4);

const { scan } = await import("@mdn/mdn-http-observatory/src/scanner/index.js");
const { scan: page, tests } = await scan(host + path);
const { csp } = new parser.CspParser(page.responseHeaders["content-security-policy"] ?? "");
const findings = new evaluator.CspEvaluator(csp).evaluate();
console.log(
  JSON.stringify({
    score: page.score,
    tests: Object.entries(tests).map(([name, t]) => `${t.scoreModifier} ${name}: ${t.result}`),
    findings: findings.map((f) => `${f.directive} ${f.value ?? ""}: ${f.description}`),
  }),
);
