"""Make an image, then change it: ``python examples/images.py [openai|openrouter]``.

The key is taken from OPENAI_API_KEY or OPENROUTER_API_KEY. The images are written into the working folder.
"""

from __future__ import annotations

import asyncio
import sys

from plait import AsyncImageClient, PlaitError


async def main(provider: str) -> int:
    """Make and change one image; give the program's exit code."""
    try:
        client = AsyncImageClient(provider=provider)
    except PlaitError as error:
        print(error, file=sys.stderr)
        return 1
    made = await client.generate("A futuristic cityscape with flying cars at sunset", quality="hd")
    if not made.success:
        print(f"Generation failed: {made.error}")
        return 1
    (city,) = await made.save("cityscape")
    print(f"Generated {city}")

    edited = await client.edit("Add a rainbow in the sky", images=[city])
    if not edited.success:
        print(f"Edit failed: {edited.error}")
        return 1
    (rainbow,) = await edited.save("cityscape-with-rainbow")
    print(f"Edited {rainbow}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:2] or ["openai"])))
