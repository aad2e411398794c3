# STANDIN
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    name: str


F = {
    "movie-reviews": "movieReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "product-reviews": "amazonReviewSnippets_GroundTruth.txt",
    "news-sentences": "nytEditorialSnippets_GroundTruth.txt",
}
CATALOGUE = {n: Source(n) for n in F}


def get(name, progress=None):
    p = Path("/tmp/data") / f"{name}.jsonl"
    if p.exists():
        return p
    p.parent.mkdir(exist_ok=True)
    t = tarfile.open("/tmp/dl/vaderSentiment-3.3.2.tar.gz")
    inner = tarfile.open(
        fileobj=io.BytesIO(t.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz").read())
    )
    m = [x for x in inner.getmembers() if x.name.endswith(F[name]) and "/._" not in x.name][0]
    with p.open("w") as f:
        for l in inner.extractfile(m).read().decode("utf-8", "replace").splitlines():
            i, s, x = l.split("\t")[:3]
            s = float(s)
            if abs(s) < 0.5:
                continue
            f.write(
                json.dumps({"id": i, "text": x.strip(), "label": "positive" if s > 0 else "negative", "score": s})
                + "\n"
            )
    return p
