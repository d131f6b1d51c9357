/** Signs the user out here and at the identity provider. The page logs the phone out before. */

import { signOut } from "../../../lib/auth";

export async function POST(): Promise<Response> {
  const url = await signOut();
  return new Response(null, { status: 303, headers: { Location: url.href } });
}
