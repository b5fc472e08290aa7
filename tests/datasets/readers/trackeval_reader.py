"""Read the tracking formats of a data set with TrackEval: the truth as a tracker has a perfect score.

Run in an environment that has trackeval: python trackeval_reader.py DATA_SET EMPTY_FOLDER
"""

import sys
from pathlib import Path

import numpy as np

np.float, np.int = float, int  # which TrackEval uses
import trackeval  # noqa: E402

root, trackers = map(Path, sys.argv[1:])
QUIET = {"PRINT_CONFIG": False, "PRINT_RESULTS": False, "OUTPUT_SUMMARY": False, "OUTPUT_DETAILED": False}
QUIET |= {"PLOT_CURVES": False, "TIME_PROGRESS": False, "BREAK_ON_ERROR": True}


def write_tracks() -> None:
    """Write the truth as what a tracker found, in both formats."""
    for kind in ("kitti", "mot"):
        (trackers / kind / "same" / "data").mkdir(parents=True)
    for path in (root / "kitti_tracking/training/label_02").iterdir():
        lines = [line for line in path.read_text().splitlines() if line.split()[2] in ("Car", "Pedestrian")]
        (trackers / "kitti/same/data" / path.name).write_text("".join(f"{line} 1.0\n" for line in lines))
    for folder in (root / "mot/train").iterdir():
        rows = [line.split(",") for line in (folder / "gt/gt.txt").read_text().splitlines()]
        lines = [",".join([*row[:6], "1,-1,-1,-1\n"]) for row in rows if row[6:8] == ["1", "1"]]
        (trackers / "mot/same/data" / f"{folder.name}.txt").write_text("".join(lines))


def check(data: object) -> None:
    """Evaluate the tracks."""
    measures = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(), trackeval.metrics.Identity()]
    results, messages = trackeval.Evaluator(QUIET).evaluate([data], measures)
    assert messages[data.get_name()]["same"] == "Success", messages
    for kind, found in results[data.get_name()]["same"]["COMBINED_SEQ"].items():
        number = found["Count"]["GT_Dets"]
        print(data.get_name(), kind, number, found["HOTA"]["HOTA"].mean())
        if number:
            assert found["HOTA"]["HOTA"].mean() == 1 and found["CLEAR"]["MOTA"] == 1 and found["Identity"]["IDF1"] == 1


write_tracks()
KITTI = {"GT_FOLDER": str(root / "kitti_tracking/training"), "SPLIT_TO_EVAL": "training", "PRINT_CONFIG": False}
check(trackeval.datasets.Kitti2DBox({**KITTI, "TRACKERS_FOLDER": str(trackers / "kitti")}))
MOT = {"GT_FOLDER": str(root / "mot/train"), "SKIP_SPLIT_FOL": True, "PRINT_CONFIG": False}
MOT |= {"SEQMAP_FILE": str(root / "mot/seqmaps/train.txt"), "TRACKERS_FOLDER": str(trackers / "mot")}
check(trackeval.datasets.MotChallenge2DBox(MOT))
