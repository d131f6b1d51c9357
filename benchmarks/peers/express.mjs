// A typical implementation in Node: Express and jose. It verifies each token and returns a cached login.
import express from "express";
import { importSPKI, jwtVerify } from "jose";

const key = await importSPKI(process.env.DIALTONE_ISSUER_PEM, "RS256");
const options = { issuer: process.env.DIALTONE_ISSUER, audience: process.env.DIALTONE_AUDIENCE, algorithms: ["RS256"] };
const login = { login_token: "x".repeat(800), sip_username: "gencred", sip_uri: "sip:gencred@sip.telnyx.com" };

const app = express();
app.use(express.json());
app.post("/v1/telephony-credentials", async (request, response) => {
  try {
    const token = (request.headers.authorization ?? "").replace(/^Bearer /, "");
    await jwtVerify(token, key, options);
  } catch {
    return response.status(401).json({ error: "invalid_token" });
  }
  response.json({ id: request.body.device_id, ...login });
});
app.listen(Number(process.env.PORT), "127.0.0.1");
