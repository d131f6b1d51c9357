"""HTTP routes, one router a resource. Each translates a request, calls one domain function, builds the answer."""
