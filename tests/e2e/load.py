"""Ask a URL over one keep-alive connection until a line comes on standard input; print what came of it."""

import http.client
import json
import select
import sys
from urllib.parse import urlsplit


def main() -> None:
    url = urlsplit(sys.argv[1])
    failed: list[str] = []
    answered = 0
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        try:
            connection.request("GET", url.path)
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                answered += 1
            else:
                failed.append(str(response.status))
        except (OSError, http.client.HTTPException) as error:
            failed.append(repr(error))
            connection.close()
            connection = http.client.HTTPConnection(url.netloc, timeout=10)
    sys.stdout.write(json.dumps({"answered": answered, "failed": failed}))


main()
