"""A typo stops the deployment with a sentence, not the first user."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from dotenv import dotenv_values
from pydantic import ValidationError

from app.identity.write_keys import WriteKey
from app.settings import Settings, SettingsError, load_settings, read_app_env, refuse_workers_without_redis
from app.settings.unknown_names import OUR_PREFIXES
from tests.unit.keys import ec_key, private_pem, public_pem, rsa_key

SECRET = "x" * 32


@pytest.fixture(autouse=True)
def only_what_the_test_sets(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.upper() in {field.upper() for field in Settings.model_fields} or name.startswith(OUR_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def complaint(**settings):
    """The sentence, when these stand in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        with pytest.raises(SettingsError) as refused:
            load_settings(None)
    sentence = str(refused.value)
    assert sentence.startswith("switchyard: ")
    assert "\n" not in sentence
    return sentence


def given(**settings):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        return load_settings(None)


def test_nothing_set_is_a_working_development_setup():
    settings = load_settings(None)
    assert (settings.app_env, settings.port, settings.data_dir) == ("development", 8080, Path("var"))
    assert settings.mongo_uri is settings.redis_url is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_ENV", "staging"),
        ("PORT", "eighty"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("WEB_CONCURRENCY", "many"),
        ("WEB_CONCURRENCY", "0"),
        ("MONGO_URI", "localhost:27017"),
        ("MONGO_URI", "http://localhost"),
        ("MONGO_URI", "mongodb://"),
        ("MONGO_TIMEOUT_MS", "0"),
        ("MONGO_TIMEOUT_MS", "1.5s"),
        ("REDIS_URL", "localhost"),
        ("REDIS_URL", "redis:/localhost"),
        ("REDIS_URL", "redis://h:port"),
        ("REDIS_URL", "unix://"),
        ("REDIS_URL", "unix:/run/redis.sock"),
        ("CORS_ORIGINS", "app.example.com"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "*,https://app.example.com/path"),
        ("CORS_ORIGINS", "https://*"),
        ("CORS_ORIGINS", "https://.*"),
        ("RATE_LIMIT_HTTP", "fast"),
        ("RATE_LIMIT_HTTP", "100"),
        ("RATE_LIMIT_HTTP", "0/second"),
        ("RATE_LIMIT_HTTP", "10/second;100/minute"),
        ("RATE_LIMIT_HTTP", "-5/second"),
        ("TRUSTED_PROXIES", "yes"),
        ("TRUSTED_PROXIES", "11"),
        ("HTTP_MAX_BODY_BYTES", "10"),
        ("HTTP_READ_TIMEOUT_MS", "0"),
        ("DRAIN_TIMEOUT_MS", "-1"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("JWT_SECRET", "short"),
        ("JWT_JWKS_URL", "issuer.example.com/keys"),
        ("JWT_JWKS_URL", "file:///etc/passwd"),
        ("JWT_LEEWAY_S", "301"),
        ("WRITE_KEYS", "wk_without_a_name"),
        ("WRITE_KEYS", "web:"),
        ("WRITE_KEYS", ":wk_abc"),
        ("TELEMETRY_MAX_EVENTS", "0"),
        ("TELEMETRY_TTL_DAYS", "-1"),
        ("TELEMETRY_SAMPLE_RATE", "1.01"),
        ("TELEMETRY_SAMPLE_RATE", "nan"),
        ("SPOOL_MAX_BYTES", "1GB"),
        ("RT_MAX_TOPICS", ""),
        ("RT_MAX_TOPICS", "no"),
    ],
)
def test_a_bad_value_stops_the_boot_with_a_sentence_that_names_the_setting(name, value):
    if value == "":
        assert given(**{name: value}) == load_settings(None)  # empty means not set
    else:
        assert name in complaint(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TELEMETRY_TTL_DAYS", "many", "must be a whole number"),
        ("PORT", "9" * 5000, "must be a whole number of fewer digits"),
        ("PORT", "70000", "must be at most 65535"),
        ("SPOOL_MAX_BYTES", "1", "must be at least 1024"),
        ("TELEMETRY_SAMPLE_RATE", "half", "must be a number"),
        ("RT_ACK_DEFAULT", "perhaps", "must be true or false"),
        ("JWT_SECRET", "short", "must be at least 32 characters long"),
        ("LOG_FORMAT", "xml", "must be 'json' or 'console'"),
    ],
)
def test_a_sentence_says_what_the_value_must_be_without_the_words_of_a_library(name, value, words):
    assert complaint(**{name: value}) == f"switchyard: {name} {words}"


def test_every_bad_value_is_named_at_once():
    sentence = complaint(PORT="eighty", LOG_LEVEL="loud")
    assert "PORT" in sentence and "LOG_LEVEL" in sentence


@pytest.mark.parametrize("prefix", OUR_PREFIXES)
def test_an_unknown_name_under_one_of_our_prefixes_stops_the_boot(prefix):
    name = prefix + "NO_SUCH_THING"
    assert name in complaint(**{name: "1"})
    assert name.lower() in complaint(**{name.lower(): "1"})


def test_an_unknown_name_in_the_env_file_stops_the_boot_too(tmp_path):
    (tmp_path / ".env").write_text("TELEMETRY_TTL_DAY=30\n")
    with pytest.raises(SettingsError, match="unknown setting TELEMETRY_TTL_DAY "):
        load_settings()


def test_names_of_other_programs_are_none_of_our_business(tmp_path):
    (tmp_path / ".env").write_text("EDITOR=vi\nFLASK_DEBUG=1\n")
    assert load_settings() == load_settings(None)


def test_the_environment_wins_over_the_env_file_and_an_argument_over_both(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("PORT=1\nHOST=from-file\n")
    monkeypatch.setenv("PORT", "2")
    assert (load_settings().port, load_settings().host) == (2, "from-file")
    assert load_settings(port=3).port == 3


def test_empty_means_not_set_in_the_environment_and_in_the_env_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("MONGO_URI=\nJWT_SECRET=\nPORT=\n")
    monkeypatch.setenv("REDIS_URL", "")
    settings = load_settings()
    assert (settings.mongo_uri, settings.jwt_secret, settings.redis_url, settings.port) == (None, None, None, 8080)


def test_an_env_file_that_is_no_text_is_a_sentence(tmp_path):
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load_settings()
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        read_app_env("production")


def test_an_argument_that_is_no_setting_is_refused():
    with pytest.raises(TypeError, match="prot"):
        load_settings(None, prot=1)


def test_settings_are_frozen_to_the_bottom():
    settings = given(WRITE_KEYS="web:wk_abc", CORS_ORIGINS="https://a.test")
    with pytest.raises(ValidationError):
        settings.port = 1
    with pytest.raises(TypeError):
        settings.write_keys["wk_more"] = "web"
    with pytest.raises(AttributeError):
        settings.cors_origins.append("*")


def test_the_text_form_of_the_settings_shows_no_secret():
    settings = given(
        JWT_SECRET="s3cret" * 6,
        METRICS_TOKEN="s3cret-token",
        MONGO_URI="mongodb://u:s3cret@h/",
        REDIS_URL="redis://:s3cret@h",
        WRITE_KEYS="a:s3cret",
    )
    assert "s3cret" not in repr(settings) + str(settings)
    assert "port=8080" in repr(settings)


def test_a_complaint_shows_no_secret():
    assert "hunter2" not in complaint(JWT_SECRET="hunter2") + complaint(REDIS_URL="hunter2") + complaint(MONGO_URI="user:hunter2@host")


def test_byte_rates_follow_the_request_rate_where_they_are_not_set_and_never_below_two_megabytes():
    assert given(RATE_LIMIT_HTTP="1000/second").byte_rates() == (20e6, 200e6, 200e6)
    assert given(RATE_LIMIT_HTTP="5/hour").byte_rates() == (2e6, 20e6, 20e6)
    own = {"TELEMETRY_ADDRESS_BYTE_RATE": "600/minute", "TELEMETRY_APP_BYTE_RATE": "3000000/second"}
    assert given(**own).byte_rates() == (10, 100, 3e6)


# Production.


def test_production_without_a_verification_key_does_not_start_and_says_why():
    assert complaint(APP_ENV="production").endswith("set JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URL")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"WRITE_KEYS": "web:wk_twelve_12,ios:" + "k" * 16}, "the write key of web (WRITE_KEYS)"),
        ({"WRITE_KEYS": "web:" + "k" * 15 + "@shop"}, "the write key of web (WRITE_KEYS)"),
        ({"METRICS_TOKEN": "fifteen-letters"}, "METRICS_TOKEN"),
    ],
)
def test_production_refuses_a_secret_that_can_be_guessed_without_showing_it(settings, named):
    sentence = complaint(APP_ENV="production", JWT_SECRET=SECRET, **settings)
    assert sentence.startswith(f"switchyard: {named} can be guessed") and "at least 16 characters" in sentence
    assert not any(value.rpartition(":")[2].partition("@")[0] in sentence for value in settings.values())
    assert given(APP_ENV="development", **settings)


def test_production_takes_secrets_of_sixteen_characters():
    assert given(APP_ENV="production", JWT_SECRET=SECRET, WRITE_KEYS="web:" + "k" * 16 + "@a", METRICS_TOKEN="m" * 16)


@pytest.mark.parametrize("key", [{"JWT_SECRET": SECRET}, {"JWT_JWKS_URL": "https://issuer.test/keys"}])
def test_production_starts_with_any_of_the_keys(key):
    assert given(APP_ENV="production", **key).is_production


@pytest.mark.parametrize("line", ['WRITE_KEYS="web:wk_0123456789abcdef', "CORS_ORIGINS='https://a.example", "PORT 8080", "=x"])
def test_a_line_of_the_env_file_that_cannot_be_read_stops_the_boot_and_is_named(tmp_path, line):
    (tmp_path / ".env").write_text(f"# a comment\nHOST=127.0.0.1\n{line}\n")
    with pytest.raises(SettingsError, match=r"\.env, line 3: cannot be read") as refusal:
        load_settings(tmp_path / ".env")
    assert "wk_0123" not in str(refusal.value)


def test_app_env_is_what_the_environment_says_else_the_env_file_else_the_servers_default(tmp_path, monkeypatch):
    assert read_app_env("production") == "production"
    (tmp_path / ".env").write_text("APP_ENV=development\n")
    assert read_app_env("production") == "development"
    monkeypatch.setenv("APP_ENV", "production")
    assert read_app_env("development") == "production"


def test_several_workers_need_redis():
    assert "REDIS_URL" in complaint(WEB_CONCURRENCY="2")
    assert given(WEB_CONCURRENCY="2", REDIS_URL="redis://h").web_concurrency == 2
    with pytest.raises(SettingsError, match="4 workers need REDIS_URL"):
        refuse_workers_without_redis(4, load_settings(None))


# Lists, rates and keys.


@pytest.mark.parametrize("rate", ["50/second", "600/minute", "1 per hour", "100/10 seconds"])
def test_a_rate_is_what_the_limits_library_reads(rate):
    assert given(RATE_LIMIT_HTTP=rate).rate_limit_http == rate


def test_lists_have_commas_and_forgive_spaces():
    assert given(TELEMETRY_DENY=" a, b ,,c ").telemetry_deny == ("a", "b", "c")


def test_a_log_level_may_be_shouted():
    assert given(LOG_LEVEL="WARNING").log_level == "warning"


def test_write_keys_are_found_by_key_and_a_name_may_have_two():
    keys = given(WRITE_KEYS="web:wk_old, web:wk_new,ios:wk_ios").write_keys
    assert keys == {"wk_old": WriteKey("web"), "wk_new": WriteKey("web"), "wk_ios": WriteKey("ios")}


def test_after_the_key_may_stand_the_only_apps_that_it_may_name():
    keys = given(WRITE_KEYS="web:wk_abc @ shop + blog,ios:wk_def@shop,any:wk_ghi").write_keys
    assert {key.name: key.apps for key in keys.values()} == {"web": {"shop", "blog"}, "ios": {"shop"}, "any": None}


@pytest.mark.parametrize("apps", ["", "shop+", "+", "x" * 129, "shop+" + "x" * 129])
def test_a_key_that_is_bound_to_an_app_without_a_name_is_refused(apps):
    sentence = complaint(WRITE_KEYS=f"web:wk_abc@{apps}")
    assert "WRITE_KEYS" in sentence and "the key of web" in sentence and "wk_abc" not in sentence.partition("; must be")[0]


def test_two_write_keys_with_one_value_are_refused():
    assert "both web and ios" in complaint(WRITE_KEYS="web:wk_abc,ios:wk_abc")
    assert "wk_abc" not in complaint(WRITE_KEYS="web:wk_abc,ios:wk_abc")


@pytest.mark.parametrize("name", ["CORS_ORIGINS", "WRITE_KEYS", "RT_LOG_RETENTION"])
def test_a_list_of_the_wrong_form_is_told_the_right_one(name):
    assert f"switchyard: {name} must be a list" in complaint(**{name: "wrong"})


def test_a_public_key_may_be_a_pem_with_written_line_breaks():
    pem = public_pem(rsa_key())
    assert given(JWT_PUBLIC_KEY=pem.replace("\n", "\\n")).jwt_public_key == pem
    assert given(JWT_PUBLIC_KEY=pem).jwt_public_key == pem


def test_a_public_key_may_be_the_path_of_a_pem(tmp_path):
    (tmp_path / "key.pem").write_text(public_pem(ec_key()))
    assert given(JWT_PUBLIC_KEY=str(tmp_path / "key.pem")).jwt_public_key == public_pem(ec_key())


@pytest.mark.parametrize(
    "text",
    [
        "/no/such/file.pem",
        "-----BEGIN PUBLIC KEY-----\nbroken\n-----END PUBLIC KEY-----",
        private_pem(ec_key()),
        public_pem(rsa_key("weak", bits=1024)),
        public_pem(ec_key("other", ec.SECP384R1)),
    ],
    ids=["no file", "broken", "private", "1024 bits", "another curve"],
)
def test_a_public_key_that_could_verify_nothing_is_refused_at_boot(text):
    assert "JWT_PUBLIC_KEY is" in complaint(JWT_PUBLIC_KEY=text)


@pytest.mark.parametrize(
    "url",
    ["redis://:ab/hunter2@h:6379/0", "redis://:hunter2/x@h", "redis://:12/hunter2@h", "rediss://u:hunter2#x@h", "redis://[hunter2@h",
     "redis://:hunter2\u2100@h", "unix://:hunter2/x@/run/redis.sock"],
)  # fmt: skip
def test_an_address_of_redis_that_cannot_be_read_is_one_sentence_without_the_password(url):
    with pytest.raises(SettingsError) as refused:
        given(REDIS_URL=url)
    assert "REDIS_URL" in str(refused.value) and "%2F" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://:a%2Fb@h:6379/0", "rediss://h?password=a@b", "unix:///run/redis.sock?db=1", "unix://:p@/run/r"])
def test_an_address_of_redis_that_can_be_read_is_taken(url):
    assert given(REDIS_URL=url).redis_url == url


# Quotes that nothing took away: `docker --env-file` and Kubernetes hand on values as they stand.

EXAMPLES = {
    "APP_ENV": "development", "LOG_FORMAT": "json", "METRICS_TOKEN": "m" * 40, "MONGO_URI": "mongodb://u:p@h/db", "REDIS_URL": "redis://h:1/0",
    "JWT_SECRET": "s" * 40, "JWT_JWKS_URL": "https://issuer.test/keys", "JWT_ISSUER": "me", "JWT_AUDIENCE": "you",
    "WRITE_KEYS": "web:wk_abc,ios:wk_def",
    "CORS_ORIGINS": "https://a.test,https://b.test", "TELEMETRY_ALLOW": "a,b*", "TELEMETRY_DENY": "secret*",
    "RT_LOG_RETENTION": "chat:*=5000/16777216/604800", "JWT_PUBLIC_KEY": public_pem(ec_key()),
}  # fmt: skip
EVERY_VALUE = {name: value for name, value in dotenv_values(Path(__file__).parents[2] / ".env.example").items() if value} | EXAMPLES


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("name", EVERY_VALUE)
def test_a_value_in_quotes_is_the_value_without_them(name, quote):
    value = EVERY_VALUE[name]
    plain = getattr(given(**{name: value}), name.lower())
    assert getattr(given(**{name: f"{quote}{value}{quote}"}), name.lower()) == plain
    assert given(**{name: f"{quote}{quote}"}) == load_settings(None), "nothing in quotes is not set"


def test_each_part_of_a_list_may_have_quotes_of_its_own():
    assert given(TELEMETRY_DENY="'a','b c'").telemetry_deny == ("a", "b c")


@pytest.mark.parametrize(
    ("name", "value"),
    [("HOST", '"h'), ("JWT_ISSUER", "me'"), ("TELEMETRY_DENY", '"a,b'), ("TELEMETRY_ALLOW", "a,'b"), ("WRITE_KEYS", 'web:"wk_abc'),
     ("WRITE_KEYS", 'web:"wk_abc",ios:"wk_def"'), ("DATA_DIR", '/var/lib/x"'), ("CORS_ORIGINS", '"https://a.test'), ("PORT", '"80')],
)  # fmt: skip
def test_half_a_pair_of_quotes_is_refused_with_a_sentence(name, value):
    assert name in complaint(**{name: value})


def test_a_secret_may_begin_with_a_quote():
    secret = "'" + "s" * 40
    assert given(JWT_SECRET=secret).jwt_secret == secret
