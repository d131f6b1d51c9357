/** Sends the user to the identity provider. */

import { redirect } from "next/navigation";

import { beginSignIn, homeUrl } from "../../../lib/auth";

export async function GET(): Promise<never> {
  const url = await beginSignIn().catch((error: unknown) => {
    console.error("The identity provider is unavailable:", error);
    return homeUrl("unavailable");
  });
  redirect(url.href);
}
