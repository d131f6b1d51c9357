"use client";
/** The phone of the signed-in user: its state, its address and its call. */

import { useState } from "react";

import { TelnyxRTC } from "@telnyx/webrtc";
import { PhoneProvider, useCall, usePhone } from "dialtone-client/react";

/** The access token stays in memory. dialtone-client calls this function for each request. */
async function getAccessToken(userId: string): Promise<string | null> {
  const answer = await fetch(`/auth/token?user=${encodeURIComponent(userId)}`);
  if (answer.status === 401) return null; // the session has ended, or another user has signed in
  if (!answer.ok) throw new DOMException("The sign-in service is unavailable.", "NetworkError"); // it is tried again
  return ((await answer.json()) as { access_token: string }).access_token;
}

export function Phone({ url, user }: { url: string; user: { id: string; name: string } }) {
  const [mediaError, setMediaError] = useState<string>();

  return (
    <PhoneProvider
      url={url}
      user={user.id}
      accessToken={() => getAccessToken(user.id)}
      createClient={(options) => {
        const client = new TelnyxRTC(options);
        client.remoteElement = "remote";
        // dialtone-client reports failed logins. Only the SDK knows whether the microphone is available (42001 to 42003).
        client.on("telnyx.error", ({ error }) => Math.floor(error.code / 1000) === 42 && setMediaError(error.message));
        return client;
      }}
    >
      <Softphone name={user.name} mediaError={mediaError} onDial={() => setMediaError(undefined)} />
      <audio id="remote" autoPlay />
    </PhoneProvider>
  );
}

export function SignIn({ message }: { message: string | undefined }) {
  return (
    <form action="/auth/sign-in">
      {message && <p role="alert">{message}</p>}
      <button>Sign in</button>
    </form>
  );
}

interface SoftphoneProps {
  /** The name of the user. */
  name: string;
  /** Why the microphone cannot be used. */
  mediaError: string | undefined;
  onDial: () => void;
}

function Softphone({ name, mediaError, onDial }: SoftphoneProps) {
  const { state, error, sipUri, client, connect, logout } = usePhone<TelnyxRTC>();
  const [destination, setDestination] = useState("");

  if (error?.code === "not_signed_in") return <SignIn message="Your session has ended. Please sign in again." />;
  const message = error?.message ?? mediaError;
  return (
    <main>
      <p>Signed in as {name}</p>
      <p>
        State: <output id="state">{state}</output> {state === "failed" && <button onClick={connect}>Try again</button>}
      </p>
      <p>
        Your address: <output id="address">{sipUri}</output>
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          onDial();
          client?.newCall({ destinationNumber: destination, audio: true });
        }}
      >
        <label>
          Call{" "}
          <input
            id="to"
            size={80}
            placeholder="sip:gencred...@sip.telnyx.com"
            required
            value={destination}
            onChange={(event) => setDestination(event.target.value)}
          />
        </label>{" "}
        <button disabled={state !== "ready"}>Call</button>
      </form>
      <CurrentCall />
      <form
        action="/auth/sign-out"
        method="post"
        onSubmit={async (event) => {
          event.preventDefault();
          const form = event.currentTarget;
          if (await logout()) form.submit(); // Dialtone deletes the login while the access token is valid
        }}
      >
        <button>Sign out</button>
      </form>
      {message && <p role="alert">{message}</p>}
    </main>
  );
}

function CurrentCall() {
  const { call, state } = useCall<TelnyxRTC>();
  if (call === undefined) return null;
  return (
    <p>
      Call: <output id="call-state">{state}</output>{" "}
      {state === "ringing" && call.direction === "inbound" && <button onClick={() => call.answer()}>Answer</button>}{" "}
      <button onClick={() => call.hangup()}>Hang up</button>
    </p>
  );
}
