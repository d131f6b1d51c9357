"""Facts about phones, shown. The outside is the sandbox at the wire, real SQL, and tokens signed by another library."""
