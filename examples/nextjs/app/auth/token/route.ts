/** Gives the page an access token for Dialtone. Pages of other origins cannot read the response. */

import type { NextRequest } from "next/server";

import { SessionEnded, getAccessToken } from "../../../lib/auth";

export async function GET(request: NextRequest): Promise<Response> {
  const headers = { "Cache-Control": "no-store" };
  try {
    return Response.json({ access_token: await getAccessToken(request.nextUrl.searchParams.get("user")) }, { headers });
  } catch (error) {
    if (error instanceof SessionEnded) return new Response(null, { status: 401, headers });
    console.error("The access token cannot be refreshed:", error);
    return new Response(null, { status: 503, headers });
  }
}
