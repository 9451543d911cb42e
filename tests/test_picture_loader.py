"""The loader of a server: what it hands to SGLang, whom it serves, and that it always answers."""

import asyncio
import base64
import concurrent.futures
import io

import pytest
from PIL import Image

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.pictures.loader import PictureLoader, PixelBudget, answered
from sgl_proxythinker.pictures.places import PLACE, PlaceIds, places_in_ids, places_in_text
from sgl_proxythinker.programs.pictures import data_url, random_picture

JPEG = data_url(random_picture(1, 40, 30), "JPEG")


def load(sources, is_local=False, **limits):
    async def work():
        async with PictureLoader(Limits(**limits)).load(sources, is_local) as loaded:
            return loaded

    return asyncio.run(work())


class TestWhatSglangSees:
    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
    def test_its_loader_passes_our_pictures_through_with_gpu_decoding_on(self, sglang, form):
        """On CUDA SGLang decodes JPEGs by nvJPEG, past orientation and limits. It never does to a picture of PIL."""
        from sglang.srt.multimodal.processors.base_processor import BaseMultimodalProcessor, Modality
        from sglang.srt.utils.common import load_image

        [picture] = load([data_url(random_picture(1, 40, 30), form)]).images
        assert isinstance(picture, Image.Image) and picture.mode == "RGB" and not picture.info
        assert load_image(picture, gpu_image_decode=True)[0] is picture
        assert BaseMultimodalProcessor.gpu_image_decode, "the test would say nothing"
        assert BaseMultimodalProcessor._load_single_item(picture, Modality.IMAGE) is picture

    def test_order_and_digests(self):
        urls = [data_url(random_picture(seed)) for seed in (1, 2, 1)]
        loaded = load(urls)
        assert [one.tobytes() for one in loaded.images] == [random_picture(seed).tobytes() for seed in (1, 2, 1)]
        assert loaded.digests[0] == loaded.digests[2] != loaded.digests[1]

    def test_one_file_has_one_digest_whichever_way_it_came(self, tmp_path):
        data = base64.b64decode(JPEG.partition(",")[2])
        (tmp_path / "a.jpg").write_bytes(data)
        sources = [JPEG, JPEG.partition(",")[2], data, tmp_path / "a.jpg", str(tmp_path / "a.jpg")]
        assert len(set(load(sources, is_local=True).digests)) == 1

    def test_pictures_without_a_file_are_told_by_what_is_seen_of_them(self):
        """The pixels of two palettes may be the same numbers."""
        red, blue = Image.new("P", (4, 4)), Image.new("P", (4, 4))
        red.putpalette([255, 0, 0])
        blue.putpalette([0, 0, 255])
        clear = red.copy()
        clear.info["transparency"] = 0
        assert len(set(load([red, blue, clear, red.copy()], is_local=True).digests)) == 3


class TestWhomItServes:
    def test_paths_bytes_and_pictures_are_for_callers_of_this_process(self, tmp_path):
        path = tmp_path / "a.png"
        random_picture(1).save(path)
        for source in (path, path.read_bytes(), random_picture(1), str(path)):
            assert load([source], is_local=True).images[0].tobytes() == random_picture(1).tobytes()
            with pytest.raises(RequestError, match="a string is wanted|reads no files for clients"):
                load([source])

    def test_a_folder_is_for_everybody(self, tmp_path):
        random_picture(1).save(tmp_path / "a.png")
        for path in (f"{tmp_path}/a.png", f"file://{tmp_path}/a.png"):
            assert load([path], image_folder=tmp_path.resolve()).images

    def test_hosts_of_this_network(self):
        with pytest.raises(RequestError, match="does not answer"):
            load(["http://127.0.0.1:9/a.png"], is_local=True)
        with pytest.raises(RequestError, match="--proxy-image-url-private"):
            load(["http://127.0.0.1:9/a.png"])
        with pytest.raises(RequestError, match="does not answer"):
            load(["http://127.0.0.1:9/a.png"], image_url_private=True)

    @pytest.mark.parametrize("source", [5, True, {"path": "x"}, {"url": 5}, ["x"]])
    def test_something_else(self, source):
        with pytest.raises(RequestError, match="wanted"):
            load([source])

    def test_an_objects_url(self, sglang):
        from sglang.srt.utils.common import ImageData

        assert load([ImageData(url=JPEG), {"url": JPEG, "detail": "auto"}]).images
        for wish in (
            ImageData(JPEG, detail="low"),
            ImageData(JPEG, max_dynamic_patch=2),
            {"url": JPEG, "max_pixels": 9},
        ):
            with pytest.raises(RequestError, match="--mm-process-config"):
                load([wish])


class TestBounds:
    def test_pixels_of_one(self):
        huge = io.BytesIO()
        Image.new("1", (1001, 1000)).save(huge, "PNG")
        with pytest.raises(RequestError, match="1001 x 1000, and at most 1,000,000"):
            load([huge.getvalue()], is_local=True, image_max_megapixels=1)

    def test_files_of_one_request(self, tmp_path):
        """A request that names pictures holds no more than one that sends them."""
        path = tmp_path / "a.png"
        random_picture(1).save(path)
        path.write_bytes(path.read_bytes() + bytes(300_000))
        assert len(load([str(path)] * 3, is_local=True, max_body_mib=1).images) == 3
        with pytest.raises(RequestError, match="more than 1 MiB together.*--proxy-max-body-mib"):
            load([str(path)] * 4, is_local=True, max_body_mib=1)

    def test_number(self):
        with pytest.raises(RequestError, match="has 3 images, and 2 are taken"):
            load([JPEG] * 3, max_images=2)

    def test_pixels_of_one_request(self):
        pictures = [Image.new("1", (1000, 700))] * 3
        with pytest.raises(RequestError, match="2,100,000 pixels together, and 2,000,000"):
            load(pictures, is_local=True, image_total_megapixels=2)

    def test_pixels_of_all_requests(self):
        """Huge pictures at once are decoded one after the other, and each is answered."""

        async def work():
            loader = PictureLoader(Limits(image_total_megapixels=1))
            running = most = 0

            async def one():
                nonlocal running, most
                async with loader.load([Image.new("1", (1000, 700))], True):
                    running += 1
                    most = max(most, running)
                    await asyncio.sleep(0)
                    running -= 1

            await asyncio.gather(*(one() for _ in range(8)))
            return most

        assert asyncio.run(work()) == 1

    def test_a_small_picture_waits_for_no_download(self):
        """The loader's threads are free while a download hangs."""

        async def work():
            loader = PictureLoader(Limits(image_url_private=True, image_urls_at_once=1))
            hung = asyncio.Event()

            async def answer_nothing(reader, writer):
                hung.set()
                await reader.read()
                writer.close()

            server = await asyncio.start_server(answer_nothing, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]

            async def one(source):
                async with loader.load([source], False) as loaded:
                    return loaded.images

            waiting = [asyncio.create_task(one(f"http://127.0.0.1:{port}/{number}")) for number in range(40)]
            await hung.wait()
            assert await one(JPEG)
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            server.close()

        asyncio.run(work())

    def test_who_gives_up_takes_nothing_along(self):
        async def work():
            budget = PixelBudget(10)

            async def hold(pixels, until):
                async with budget.holding(pixels):
                    await until.wait()

            end = asyncio.Event()
            first = asyncio.create_task(hold(10, end))
            await asyncio.sleep(0)
            second, third = asyncio.create_task(hold(10, end)), asyncio.create_task(hold(5, end))
            await asyncio.sleep(0)
            second.cancel()
            first.cancel()
            await asyncio.sleep(0)
            end.set()
            await asyncio.wait_for(third, 5)
            async with asyncio.timeout(5), budget.holding(10):
                pass

        asyncio.run(work())


class TestEveryFailureAnswers:
    def test_a_stop_iteration_comes_out_of_a_thread(self):
        def ends():
            return next(iter(()))

        async def work():
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(pool, answered(ends)), 5)

        with pytest.raises(RuntimeError, match="ends ended before it was done"):
            asyncio.run(work())

    def test_the_first_failure_of_several_names_its_picture(self):
        with pytest.raises(RequestError, match="^image 2 can't be read"):
            load([JPEG, JPEG[:603], JPEG])


IDS = PlaceIds(start=90, part=91, end=92, video=93)


class TestPlaces:
    @pytest.mark.parametrize("count", [1, 2, 40])
    def test_an_expanded_place_is_read_as_its_picture(self, count):
        text = f"a <|vision_start|>{'<|image_pad|>' * count}<|vision_end|> b"
        assert places_in_text(text, 1) == f"a {PLACE} b"
        assert places_in_ids([1, 90, *[91] * count, 92, 2], 1, IDS) == [1, 90, 91, 92, 2]

    @pytest.mark.parametrize(("places", "pictures"), [(0, 1), (1, 0), (1, 2), (2, 1), (3, 0)])
    def test_another_number_is_a_refusal_with_both(self, places, pictures):
        both = f"{places} place.* {pictures} image"
        with pytest.raises(RequestError, match=both):
            places_in_text("x" + PLACE * places, pictures)
        with pytest.raises(RequestError, match=both):
            places_in_ids([1, *[90, 91, 92] * places], pictures, IDS)

    @pytest.mark.parametrize(
        ("text", "ids"),
        [
            ("<|image_pad|>", [91]),
            ("<|vision_start|><|image_pad|>", [90, 91]),
            ("<|image_pad|><|vision_end|>", [91, 92]),
            ("<|vision_start|><|vision_end|><|image_pad|>", [90, 92, 91]),
            ("<|video_pad|>", [93]),
            ("<|vision_start|><|video_pad|><|vision_end|>", [90, 93, 92]),
        ],
    )
    def test_parts_of_places_are_words_alone_and_a_refusal_beside_a_picture(self, text, ids):
        assert places_in_text(text, 0) == text
        assert places_in_ids([1, *ids], 0, IDS) == [1, *ids]
        with pytest.raises(RequestError, match="outside of a place|beside an image"):
            places_in_text(text + PLACE, 1)
        with pytest.raises(RequestError, match="outside of a place|beside an image"):
            places_in_ids([*ids, 90, 91, 92], 1, IDS)

    def test_text_without_pictures_is_left_as_it_is(self):
        assert places_in_ids([1, 91, 91, 91, 2], 0, IDS) == [1, 91, 91, 91, 2]
