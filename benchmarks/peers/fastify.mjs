// A fast implementation in Node: Fastify and jose. It verifies each token and returns a cached login.
import fastify from "fastify";
import { importSPKI, jwtVerify } from "jose";

const key = await importSPKI(process.env.DIALTONE_ISSUER_PEM, "RS256");
const options = { issuer: process.env.DIALTONE_ISSUER, audience: process.env.DIALTONE_AUDIENCE, algorithms: ["RS256"] };
const login = { login_token: "x".repeat(800), sip_username: "gencred", sip_uri: "sip:gencred@sip.telnyx.com" };

const app = fastify();
app.post("/v1/telephony-credentials", async (request, reply) => {
  try {
    const token = (request.headers.authorization ?? "").replace(/^Bearer /, "");
    await jwtVerify(token, key, options);
  } catch {
    return reply.code(401).send({ error: "invalid_token" });
  }
  return { id: request.body.device_id, ...login };
});
await app.listen({ port: Number(process.env.PORT), host: "127.0.0.1" });
