"""What SDKs are told about sending, application by application, and what the server holds them to.

`configs` keeps the settings' values and each application's overrides of them, as a snapshot that is refreshed from
`store/` (a file for hands, or MongoDB); `schemas` says what an override may be; `gates` decides which events are taken.

What is enforced here: `deny` and `allow`, and a `sampleRate` of 0, which takes nothing. Any other rate is the SDK's alone. Who
has sampled already cannot be told from who has not, and to sample once more would keep only the rate's square of the events;
a server that counts what it is sent can at least be scaled up by the rate it gave out.
"""
