"""Writes `datasets/<name>/dummy_data`: tiny real media under real annotations.

    PYTHONPATH=tests python tests/datasets/make_dummy_data.py [NAME...]

The annotation files have the form of the published ones, with their traps: Windows line
ends, quoted commas, ids that begin with a hyphen, rows without media.
"""

import json
import pathlib
import sys

import media_files
import numpy as np

DATASETS = pathlib.Path(__file__).resolve().parents[2] / "datasets"


class Folder:
    """The dummy data of one data set."""

    def __init__(self, name):
        self.path = DATASETS / name / "dummy_data"
        self.index = 0

    def text(self, name, content, encoding="utf-8"):
        path = self.path / "annotations" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode(encoding))

    def lines(self, name, *lines, end="\n", encoding="utf-8"):
        self.text(name, end.join(lines) + end, encoding)

    def clip(self, name, seconds=1.0, **options):
        """A clip that differs from all others, of one picture in each half second."""
        path = self.path / "media" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.index += 1
        options = {
            "size": (32, 24),
            "frame_rate": 2,
            "sample_rate_hz": 8000 if name.endswith(".wav") else 16000,
            "sound": media_files.sine(200 + 40 * self.index),
            "picture": _picture(self.index),
            **options,
        }
        media_files.write_clip(path, seconds, **options)


def _picture(index):
    def picture(time, width, height):
        grey = (40 * index + 50 * time) % 256
        return np.full((height, width, 3), grey, np.uint8)

    return picture


def _silence(times):
    return np.zeros((1, len(times)))


def vggsound(folder):
    folder.lines(
        "vggsound.csv",
        "---g-f_I2yQ,1,people marching,test",
        "--0PQM4-hqg,30,waterfall burbling,train",
        '0a_wasp-0-9,5,"bee, wasp, etc. buzzing",train',
        "_xladder-_0,7,extending ladders,train",
        "missing-_-_,7,hail,train",
    )
    folder.lines(
        "test.csv",
        "---g-f_I2yQ_000001.mp4,people marching",
        'absent-----_000003.mp4,"bee, wasp, etc. buzzing"',
        end="\r\n",
    )
    folder.clip("---g-f_I2yQ_000001.mp4")
    folder.clip("video/--0PQM4-hqg_000030.mp4")
    folder.clip("0a_wasp-0-9_5000_15000.mp4")


def audioset(folder):
    head = (
        "# Segments csv created Sun Mar  5 10:54:31 2017",
        "# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=5",
        "# YTID, start_seconds, end_seconds, positive_labels",
    )
    folder.lines(
        "class_labels_indices.csv",
        "index,mid,display_name",
        '0,/m/09x0r,"Speech"',
        '1,/m/05zppz,"Male speech, man speaking"',
        '2,/t/dd00088,"Gargling"',
    )
    folder.lines(
        "balanced_train_segments.csv",
        *head,
        '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"',
        '--ZhevVpy1s, 50.000, 60.000, "/m/05zppz"',
        '--aE2O5G5WE, 0.000, 10.000, "/m/09x0r"',
    )
    folder.lines(
        "unbalanced_train_segments.csv",
        *head,
        '---1_cCGK4M, 0.000, 10.000, "/t/dd00088"',
        '-unknown---, 0.000, 10.000, "/m/unknown"',
    )
    folder.lines(
        "eval_segments.csv", *head, '--4gqARaEJE, 0.000, 10.000, "/m/09x0r,/m/05zppz"'
    )
    folder.lines("as500k.txt", "--ZhevVpy1s", "---1_cCGK4M")
    folder.clip("--PJHxphWEs_30.000.mp4")
    folder.clip("train/--ZhevVpy1s.mkv")
    folder.clip("---1_cCGK4M.flac")
    folder.clip("eval/--4gqARaEJE_0_10000.mp4")


def kinetics400(folder):
    columns = "youtube_id,time_start,time_end,split,is_cc"
    folder.lines(
        "train.csv",
        f"label,{columns}",
        '"playing piano",-bcJuKJQN_s,40,50,train,0',
        '"air drumming",_dbcJuKJQNs,40,50,train,0',
        "bowling,missing-_-_,61,71,train,0",
        "bowling,UTZNGD-TvvY,61,61,train,0",
    )
    folder.lines(
        "val.csv", f"label,{columns}", "yoga,0yoga-00-00,3,13,val,0", end="\r\n"
    )
    # As in releases whose test split has no labels.
    folder.lines("test.csv", columns, "0unknown-00,3,13,test,0")
    folder.clip("train/-bcJuKJQN_s_000040_000050.mp4")
    folder.clip("replacement/_dbcJuKJQNs_000040_000050.mp4")
    folder.clip("val/yoga/0yoga-00-00_000003_000013.mp4")
    folder.clip("0unknown-00_000003_000013.mp4", audio=None)


def kinetics_sounds(folder):
    head = "label,youtube_id,time_start,time_end,split,is_cc"
    folder.lines(
        "train.csv",
        head,
        '"playing piano",-bcJuKJQN_s,40,50,train,0',
        '"air drumming",_dbcJuKJQNs,40,50,train,0',
        "bowling,UTZNGD-TvvY,61,71,train,0",
        "bowling,UTZNGD-TvvY,61,61,train,0",
    )
    folder.lines("val.csv", head, '"tapping pen",0tap-pen-00,3,13,val,0', end="\r\n")
    folder.lines("test.csv", head, "tickling,0tickling-0,3,13,test,0")
    folder.clip("train/-bcJuKJQN_s_000040_000050.mp4")
    folder.clip("replacement/UTZNGD-TvvY_000061_000071.mp4")
    folder.clip("val/tapping pen/0tap-pen-00_000003_000013.mp4")
    folder.clip("0tickling-0_000003_000013.mp4", audio=None)


def epic_kitchens_100(folder):
    columns = (
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,"
        "stop_timestamp,start_frame,stop_frame"
    )
    labels = "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
    folder.lines(
        "EPIC_100_train.csv",
        f"{columns},{labels}",
        "P01_11_0,P01,P01_11,00:00:00.560,00:00:00.50,00:00:01.89,1,113,take plate,"
        "take,0,plate,2,['plate'],[2]",
        "P01_11_1,P01,P01_11,00:00:02.100,00:00:02.00,00:00:04.25,120,255,"
        '"put plate, board",put,1,plate,2,"[\'plate\', \'board\']","[2, 1]"',
        "P01_11_2,P01,P01_11,00:00:04.100,00:00:04.00,00:00:04.00,240,240,take plate,"
        "take,0,plate,2,['plate'],[2]",
    )
    folder.lines(
        "EPIC_100_validation.csv",
        f"{columns},{labels}",
        "P18_01_0,P18,P18_01,00:00:00.560,00:00:01.00,00:00:02.50,1,113,wash board,"
        "wash,2,board,1,['board'],[1]",
    )
    folder.lines(
        "EPIC_100_test_timestamps.csv",
        columns,
        "P18_01_9,P18,P18_01,00:00:03.000,00:00:03.00,00:00:04.00,1,113",
    )
    for kind, names in (("verb", ("take", "put", "wash")), ("noun", ("tap", "board"))):
        names = (*names, "plate") if kind == "noun" else names
        rows = [
            f"{i},{name},\"['{name}', '{name}-on']\",x" for i, name in enumerate(names)
        ]
        name = f"EPIC_100_{kind}_classes.csv"
        folder.lines(name, "id,key,instances,category", *rows, end="\r\n")
    folder.lines("EPIC_100_tail_verbs.csv", "verb", "2")
    folder.lines("EPIC_100_tail_nouns.csv", "noun", "1")
    folder.clip("P01/videos/P01_11.MP4.mp4", 5.0)
    folder.clip("P18_01.mp4", 5.0)
    source = folder.path / "media/P01/videos/P01_11.MP4.mp4"
    source.rename(source.with_name("P01_11.MP4"))


def msr_vtt(folder):
    videos = [
        {
            "id": i,
            "video_id": f"video{i}",
            "category": i % 20,
            "url": f"https://www.youtube.com/watch?v=0video----{i}",
            "start time": 10.5,
            "end time": 21.5,
            "split": split,
        }
        for i, split in enumerate(("train", "train", "validate", "test", "test"))
    ]
    sentences = [
        {"sen_id": k, "video_id": f"video{k // 2}", "caption": f"sentence {k}, spoken"}
        for k in range(10)
    ]
    content = {"info": {}, "videos": videos, "sentences": sentences}
    folder.text("MSRVTT_data.json", json.dumps(content))
    folder.lines("MSRVTT_train.9k.csv", "video_id", "video0", "video1", "video2")
    folder.lines("MSRVTT_train.7k.csv", "video_id", "video0", "video1")
    folder.lines(
        "MSRVTT_JSFUSION_test.csv",
        "key,vid_key,video_id,sentence",
        "ret0,msr3,video3,a person is connecting something to system",
        'ret1,msr4,video4,"a cat, and nothing is heard"',
    )
    for i in range(3):
        folder.clip(f"video{i}.mp4")
    folder.clip("TestVideo/video3.mp4")
    folder.clip("TestVideo/video4.mp4", audio=None)


def youcook2(folder):
    def video(subset, *segments):
        annotations = [
            {"segment": [a, b], "id": i, "sentence": f"spread {i}, on bread"}
            for i, (a, b) in enumerate(segments)
        ]
        return {
            "duration": 8.0,
            "subset": subset,
            "recipe_type": "113",
            "annotations": annotations,
            "video_url": "https://www.youtube.com/watch?v=x",
        }

    database = {
        "-Ld3aX16zBg": video("training", (1, 3), (4, 6), (5, 5)),
        "0validation": video("validation", (2, 4)),
        "0absent----": video("validation", (2, 4)),
    }
    name = "youcookii_annotations_trainval.json"
    folder.text(name, json.dumps({"database": database}))
    folder.clip("raw_videos/training/113/-Ld3aX16zBg.mp4", 7.0)
    folder.clip("0validation.mkv", 7.0)


def howto100m(folder):
    folder.lines(
        "HowTo100M_v1.csv",
        "video_id,category_1,category_2,rank,task_id",
        "nVbIUDjzWY4,Cars & Other Vehicles,Motorcycles,27,52907",
        '-short-----,"Food, Drinks",Recipes,1,52908',
        "0absent----,Pets,Dogs,3,52909",
    )
    folder.clip("nVbIUDjzWY4.mp4", 14.0)
    folder.clip("-short-----.webm", 2.0)


def ave(folder):
    rows = (
        "Church bell&RUhOCu3LNXM&good&0&2",
        "Male speech, man speaking&-ale_speech&good&1&2",
        "Frying (food)&-ale_speech&good&0&1",
        "Frying (food)&0zerolength&good&4&4",
        "Church bell&0missing---&good&0&10",
    )
    folder.lines("Annotations.txt", "Category&VideoID&Quality&StartTime&EndTime", *rows)
    folder.lines("trainSet.txt", rows[0], rows[3])
    folder.lines("valSet.txt", rows[1])
    folder.lines("testSet.txt", rows[2], rows[4])
    folder.clip("AVE_Dataset/AVE/RUhOCu3LNXM.mp4", 2.0)
    folder.clip("-ale_speech.mp4", 2.0)
    folder.clip("0zerolength.mp4", 1.0)


def esc50(folder):
    rows = []
    for fold in range(1, 6):
        for target, name in ((0, "dog"), (36, "vacuum_cleaner"))[: 1 + (fold < 3)]:
            file = f"{fold}-1000{fold}-A-{target}.wav"
            rows.append(f"{file},{fold},{target},{name},{target == 0},1000{fold},A")
            folder.clip(f"audio/{file}", 0.5)
    head = "filename,fold,target,category,esc10,src_file,take"
    folder.lines("esc50.csv", head, *rows)


def speech_commands(folder):
    """Annotations and media are one folder."""
    media = folder.path / "media"
    names = ("yes/0a_nohash_0", "yes/0b_nohash_0", "bed/0a_nohash_0", "no/0c_nohash_1")
    for name in names:
        folder.clip(f"{name}.wav", 0.6)
    folder.clip("_background_noise_/white_noise.wav", 1.6)
    folder.clip("_background_noise_/running_tap.wav", 1.2)
    for label in ("yes", "_silence_", "_unknown_"):
        name = f"speech_commands_test_set_v0.01/{label}/0d_nohash_0.wav"
        folder.clip(name, 0.6)
    (media / "validation_list.txt").write_text("yes/0b_nohash_0.wav\n")
    (media / "testing_list.txt").write_text("no/0c_nohash_1.wav\n")
    noise = media / "_background_noise_" / "README.md"
    noise.write_text("Not a sound.\n")


def audiocaps(folder):
    head = "audiocap_id,youtube_id,start_time,caption"
    folder.lines(
        "train.csv",
        head,
        "103549,7fmOlUlwoNg,20,Constant rattling noise and sharp vibrations",
        '103548,-6BJ455B1aU,30,"A rocket flies by, followed by a loud explosion"',
        end="\r\n",
    )
    captions = [f"{k},1vtLXIdQhUg,10,caption {k}" for k in range(5)]
    folder.lines("val.csv", head, *captions, end="\r\n")
    captions = [f"{k},0test-clip-,0,caption {k}" for k in range(5)]
    folder.lines("test.csv", head, *captions[:3], end="\r\n")
    folder.clip("train/7fmOlUlwoNg.flac")
    folder.clip("-6BJ455B1aU_30.wav", 0.6)
    folder.clip("1vtLXIdQhUg.mp4")
    folder.clip("Y0test-clip-.wav", 0.6)


def clotho(folder):
    captions = ",".join(f"caption_{i}" for i in range(1, 6))
    metadata = "file_name,keywords,sound_id,sound_link,start_end_samples,"
    metadata += "manufacturer,license"
    files = {
        "development": ("Distorted AM Radio noise.wav", "Rain, heavy (roof).wav"),
        "validation": ("hum, low.wav",),
        "evaluation": ("Late night.wav",),
    }
    for split, names in files.items():
        rows = [
            f'"{name}","It rains, hard",Rain falls,Water,"Drops, drops",Wet'
            for name in names
        ]
        folder.lines(
            f"clotho_captions_{split}.csv", f"file_name,{captions}", *rows,
            encoding="iso-8859-1",
        )  # fmt: skip
        pairs = ('"[1200, 4000]"', "")
        rows = [
            f'"{name}",noise;Åre,{("Not found", "1234")[i]},link,{pairs[i]},São,CC'
            for i, name in enumerate(names)
        ]
        name = f"clotho_metadata_{split}.csv"
        folder.lines(name, metadata, *rows, encoding="iso-8859-1", end="\r\n")
        for name in names:
            folder.clip(f"{split}/{name}", 0.6)


ALL = (
    vggsound, audioset, kinetics400, kinetics_sounds, epic_kitchens_100, msr_vtt,
    youcook2, howto100m, ave, esc50, speech_commands, audiocaps, clotho,
)  # fmt: skip


def main(names):
    for write in ALL:
        if not names or write.__name__ in names:
            folder = Folder(write.__name__)
            write(folder)
            files = [p for p in folder.path.rglob("*") if p.is_file()]
            size = sum(p.stat().st_size for p in files) / 1000
            print(f"{write.__name__}: {len(files)} files, {size:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
