"""Who is calling: `gatekeeper` turns a credential into an `identity`, `tokens` verifies JWTs with keys that may come from `jwks`,
`write_keys` reads the setting, `origins` says which web pages may call, `addresses` which client is behind a proxy.
"""
