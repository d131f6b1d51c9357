"""Presets for tokens that an application signs with a library. Each names the documentation of its facts."""

from app.config.presets.preset import NOT_THE_CLIENT, Preset

APPLICATIONS = {
    "simplejwt": Preset(
        "https://django-rest-framework-simplejwt.readthedocs.io/en/latest/settings.html",
        {
            "issuer": "simplejwt",
            "takes_tokens_without_iss": True,
            "subject_claim": "user_id",
            "required_claims": {"token_type": "access"},
        },
        requires=("secret_env",),
    ),
    "passport": Preset(
        "https://laravel.com/docs/passport",
        {
            "issuer": "passport",
            "takes_tokens_without_iss": True,
            "audiences": "$client_id",
            "scope_claim": "scopes",
            "required_claims": {"sub": NOT_THE_CLIENT},
        },
        requires=("pem",),
    ),
    "devise-jwt": Preset(
        "https://github.com/waiting-for-dev/devise-jwt",
        {"issuer": "devise-jwt", "takes_tokens_without_iss": True, "required_claims": {"scp": "user"}},
        requires=("secret_env",),
    ),
}
