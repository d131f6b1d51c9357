/** The part of a sign-in library that the application needs, for the demo users of `make dev`. Replace it with yours. */

const IDENTITY = "http://127.0.0.1:8012"; // the identity provider of `make dev`

export const USERS = ["alice", "bob", "carol"];

/** An access token of the user. */
export async function getAccessToken(user: string): Promise<string> {
  const answer = await fetch(`${IDENTITY}/token`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user }),
  });
  const { access_token } = (await answer.json()) as { access_token: string };
  return access_token;
}
