/** The only page: a phone for the signed-in user, or the sign-in. */

import { getUser } from "../lib/auth";
import { Phone, SignIn } from "./phone";

const DIALTONE = process.env.DIALTONE_URL ?? "http://127.0.0.1:8010"; // the service of `make dev`

const PROBLEMS: Record<string, string> = {
  cancelled: "You cancelled the sign-in.",
  failed: "The sign-in failed. Please try again.",
  unavailable: "The sign-in service is unavailable. Please try again later.",
};

export default async function Page({ searchParams }: { searchParams: Promise<{ problem?: string | string[] }> }) {
  const [user, { problem }] = [await getUser(), await searchParams];
  if (user !== undefined) return <Phone url={DIALTONE} user={user} />;
  return <SignIn message={PROBLEMS[String(problem)]} />;
}
