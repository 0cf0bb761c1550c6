"""Images on their way out: which belong together, and in which order."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.image.packed import Source, by_service, tag_of
from orchestrator.tools.platforms import host_platform

SOURCES = st.builds(
    Source,
    st.sampled_from(["web", "backend", "single"]),
    st.just("0" * 64),
    st.just("localhost/x"),
    st.none(),
    st.sampled_from(["", "linux/amd64", "linux/arm64", "linux/riscv64"]),
)


@given(st.lists(SOURCES))
def test_each_service_comes_once_with_all_its_images_by_platform(sources: list[Source]):
    found = list(by_service(sources))
    assert [service for service, _ in found] == sorted({source.service for source in sources})
    assert sum(len(members) for _, members in found) == len(sources)
    for service, members in found:
        assert {member.service for member in members} == {service}
        platforms = [member.platform or host_platform() for member in members]
        assert platforms == sorted(platforms)


def test_one_image_that_holds_all_has_the_tag_itself():
    assert (tag_of("web", "1.2"), tag_of("single", "1.2")) == ("1.2-web", "1.2")
