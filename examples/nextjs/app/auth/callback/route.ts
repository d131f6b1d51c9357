/** Receives the user from the identity provider. */

import { redirect } from "next/navigation";
import type { NextRequest } from "next/server";
import { AuthorizationResponseError } from "openid-client";

import { finishSignIn, homeUrl } from "../../../lib/auth";

export async function GET(request: NextRequest): Promise<never> {
  const problem = await finishSignIn(request.nextUrl.searchParams).then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof AuthorizationResponseError && error.error === "access_denied") return "cancelled";
      console.error("The sign-in failed:", error);
      return "failed";
    },
  );
  redirect(homeUrl(problem).href);
}
