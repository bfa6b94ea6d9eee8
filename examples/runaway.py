"""A script with a bug: its cache never forgets anything."""

cache = {}


def handle(number):
    cache[number] = {"id": number, "body": str(number) * 200, "tags": [number, number + 1]}


def main():
    number = 0
    while True:
        handle(number)
        number += 1


if __name__ == "__main__":
    main()
