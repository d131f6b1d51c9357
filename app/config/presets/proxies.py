"""Presets for proxies that add a token to each request. Each names the documentation of its facts."""

from app.config.presets.preset import Preset

PROXIES = {
    "cloudflare-access": Preset(
        "https://developers.cloudflare.com/cloudflare-one/identity/authorization-cookie/application-token/",
        {
            "issuer": "https://$domain",
            "jwks_url": "https://$domain/cdn-cgi/access/certs",
            "header": "Cf-Access-Jwt-Assertion",
            "required_claims": {"type": "app"},  # service tokens have an empty `sub`
        },
    ),
    "google-iap": Preset(
        "https://cloud.google.com/iap/docs/signed-headers-howto",
        {
            "issuer": "https://cloud.google.com/iap",
            "jwks_url": "https://www.gstatic.com/iap/verify/public_key-jwk",
            "algorithms": ["ES256"],
            "header": "x-goog-iap-jwt-assertion",
            "required_claims": {
                "email": {"not": {"glob": "*.gserviceaccount.com"}},
                "hd": {"one_of": "$hosted_domain"},
            },
        },
        optional=frozenset({"hosted_domain"}),
    ),
    "aws-alb": Preset(
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html",
        {
            "issuer": "https://cognito-idp.$user_pool_region.amazonaws.com/$user_pool_id",
            "audiences": "$client_id",
            "header": "x-amzn-oidc-data",
        },
        requires=("signer",),
    ),
}
