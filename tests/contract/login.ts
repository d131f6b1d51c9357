// A program with the generated types, which requests a login and prints it. test_generated_clients.py compiles and runs
// it.
import type { operations } from "./schema.ts";

declare const process: { argv: string[]; stdout: { write(text: string): void } };

type Issue = operations["issueTelephonyCredential"];
type Login = Issue["responses"][200 | 201]["content"]["application/json"];
type Problem = Issue["responses"][403]["content"]["application/problem+json"];

const [, , url, token] = process.argv;
const body: Issue["requestBody"]["content"]["application/json"] = { device_id: "contract", platform: "browser", grant: "login_token" };

const response = await fetch(`${url}/v1/telephony-credentials`, {
  method: "POST",
  headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
  body: JSON.stringify(body),
});
if (!response.ok) {
  const problem = (await response.json()) as Problem;
  const code: "access_denied" | string = problem.code;
  throw new Error(code);
}
const login = (await response.json()) as Login;
const sipUri: string = login.sip_uri;
process.stdout.write(JSON.stringify({ sip_uri: sipUri, login_token: login.login_token }));

export {};
