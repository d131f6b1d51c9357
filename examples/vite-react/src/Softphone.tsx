/** Shows the phone of the signed-in user: its state, its address and its call. */

import { useState } from "react";

import type { TelnyxRTC } from "@telnyx/webrtc";
import { useCall, usePhone } from "dialtone-client/react";

interface Props {
  /** Why the microphone cannot be used. */
  mediaError: string | undefined;
  onDial: () => void;
  onSignOut: () => void;
}

export function Softphone({ mediaError, onDial, onSignOut }: Props) {
  const { state, error, sipUri, client, connect, logout } = usePhone<TelnyxRTC>();
  const [destination, setDestination] = useState("");
  const message = error?.message ?? mediaError;

  return (
    <main>
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
      <p>
        <button onClick={async () => (await logout()) && onSignOut()}>Sign out</button>
      </p>
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
