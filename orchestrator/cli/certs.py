"""`certs`: certificates for machines no public authority knows, and a look at any."""

import click

from orchestrator.cli.run import print_json, print_result

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")


@click.group()
def certs() -> None:
    """Certificates: check one, make a self-signed one, be one's own authority."""


@certs.command()
@click.option("--cert", required=True, metavar="FILE", help="Certificate chain, PEM.")
@click.option("--key", required=True, metavar="FILE", help="Its private key, PEM.")
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@json_option
def check(cert: str, key: str, domains: tuple[str, ...], as_json: bool) -> None:
    """Say whether a certificate would do: key, chain, dates, and the domains it must cover.

    \b
    Examples:
      orchestrator certs check --cert fullchain.pem --key privkey.pem shop.example.org
    """
    from pathlib import Path

    from orchestrator.cli.results import CertificateResult
    from orchestrator.deploy.tls import Pair, check_pair

    found = check_pair(Pair(Path(cert).absolute(), Path(key).absolute()), domains)
    result = CertificateResult(cert=cert, key=key, names=found.names, until=found.not_after.isoformat())
    if as_json:
        print_json(result)
    else:
        print_result(f"{cert}: for {', '.join(found.names)}, until {found.not_after:%Y-%m-%d}; the key belongs to it")


@certs.command("self-signed")
@click.argument("domains", nargs=-1, required=True, metavar="DOMAIN...")
@json_option
def self_signed(domains: tuple[str, ...], as_json: bool) -> None:
    """Make a self-signed certificate: encrypted, but every browser has to be told to go on.

    \b
    Examples:
      orchestrator certs self-signed shop.lan
      orchestrator deploy --name shop --domain shop.lan --cert … --key …   with the two files it names
    """
    import os

    from orchestrator.deploy.authority import default_tls_dir, self_sign
    from orchestrator.deploy.tls import check_pair

    pair = self_sign(default_tls_dir(os.environ), domains)
    _show_pair(str(pair.cert), str(pair.key), check_pair(pair, domains).not_after.isoformat(), domains, as_json=as_json)


@certs.command("local-ca")
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@json_option
def local_ca(domains: tuple[str, ...], as_json: bool) -> None:
    """Make an authority of one's own, once, and certificates from it; say how machines learn to trust it.

    With `--env DEV` a deploy takes certificates from it by itself.

    \b
    Examples:
      orchestrator certs local-ca
      orchestrator certs local-ca shop.lan api.shop.lan
    """
    import os

    from orchestrator.deploy.authority import default_tls_dir, ensure_authority, sign_locally, trust_advice
    from orchestrator.deploy.tls import check_pair

    directory = default_tls_dir(os.environ)
    authority, made = ensure_authority(directory)
    pair = sign_locally(directory, domains) if domains else authority
    until = check_pair(pair, domains).not_after.isoformat()
    if made and not as_json:
        click.echo(
            f"made an authority: {authority.cert}. Its key stays in {directory.path}; keep it to yourself.", err=True
        )
    _show_pair(str(pair.cert), str(pair.key), until, domains, as_json=as_json)
    if not as_json:
        click.echo("\nTo trust what it signs:", err=True)
        for line in trust_advice(directory):
            click.echo(f"  {line}", err=True)


def _show_pair(cert: str, key: str, until: str, names: tuple[str, ...], *, as_json: bool) -> None:
    from orchestrator.cli.results import CertificateResult

    if as_json:
        print_json(CertificateResult(cert=cert, key=key, names=names, until=until))
    else:
        print_result(f"--cert {cert} --key {key}")
