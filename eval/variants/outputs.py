"""Which of a network's outputs class folders are.

A network trained here knows the names of its classes. Published checkpoints do
not; theirs are in the order of ImageNet's names, n01440764 first.
"""

import dataclasses
import sys
from collections.abc import Sequence

from eval import class_order
from eval.variants.class_map import ClassMap
from san import data


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What is known of a network's outputs.

    Attributes:
      count: number of outputs.
      names: of their classes, in their order, or None.
      class_map: what the user says, or None.
    """

    count: int
    names: list[str] | None
    class_map: ClassMap | None

    @classmethod
    def known(
        cls, count: int, names: list[str] | None, class_map: ClassMap | None
    ) -> "Outputs":
        """What a checkpoint and a class map say together.

        Args:
          count: number of outputs.
          names: of their classes, if the checkpoint has them.
          class_map: what the user says, or None.

        Raises:
          ValueError: if the two contradict each other.
        """
        ordered = class_map.names if class_map else None
        if class_map is None or ordered is None:
            return cls(count, names, class_map)
        if len(ordered) != count:
            raise ValueError(
                "eval: --class_map must hold a class folder for each of the"
                f" network's {count} classes, got {len(ordered)} in"
                f" {class_map.path}"
            )
        if names is not None and sorted(names) != sorted(ordered):
            name = next(
                one for one in names if names.count(one) != ordered.count(one)
            )
            got = (
                f"one {name!r} for several"
                if name in ordered
                else f"no {name!r}"
            )
            raise ValueError(
                "eval: --class_map must hold the classes that the checkpoint"
                f" names, got {got} in {class_map.path}"
            )
        return cls(count, names or ordered, class_map)

    def of_folders(self, folders: Sequence[str], *, say: bool) -> list[int]:
        """The output that each class folder is.

        Args:
          folders: names of the class folders, in their order.
          say: print a line on stderr where something is assumed.

        Raises:
          ValueError: if that is not known of one of them.
        """
        if self.class_map is not None and self.class_map.folders is not None:
            return [self._mapped(folder, self.class_map) for folder in folders]
        if self.names is not None and set(folders) <= set(self.names):
            return [self._named(folder) for folder in folders]
        if data.are_numbers(folders):
            return self._numbered(folders, say)
        if self.names is None and len(folders) == self.count:
            if say:
                class_order.say_assumed(folders)
            return list(range(self.count))
        raise ValueError(self._unknown(folders))

    def _mapped(self, folder: str, class_map: ClassMap) -> int:
        known = class_map.folders or {}
        if folder not in known:
            raise ValueError(
                "eval: --class_map must give every class folder a class, got"
                f" none for {folder!r} in {class_map.path}"
            )
        value = known[folder]
        if isinstance(value, int):
            output = value
        elif self.names is not None and value in self.names:
            output = self._named(value)
        else:
            has = "the checkpoint names no classes, so numbers are needed"
            if self.names is not None:
                has = f"the network's are {data.first_few(self.names)}"
            raise ValueError(
                "eval: --class_map must give names of the network's classes,"
                f" got {value!r} for {folder!r} in {class_map.path}; {has}"
            )
        if not 0 <= output < self.count:
            raise ValueError(
                "eval: --class_map must give classes from 0 to"
                f" {self.count - 1}, got {output} for {folder!r} in"
                f" {class_map.path}"
            )
        self._check_not_another(folder, output, class_map)
        return output

    def _check_not_another(
        self, folder: str, output: int, class_map: ClassMap
    ) -> None:
        """A folder that is named like a class is no other class."""
        if self.names is None or folder not in self.names:
            return
        if self.names[output] != folder:
            raise ValueError(
                "eval: --class_map must not contradict the checkpoint, got"
                f" class {output} for {folder!r} in {class_map.path}, which is"
                f" the network's class {self.names.index(folder)}"
            )

    def _named(self, name: str) -> int:
        """The output of a name, which two may have: ImageNet has two cranes."""
        names = self.names or []
        if names.count(name) > 1:
            places = [str(n) for n, other in enumerate(names) if other == name]
            raise ValueError(
                "eval: the checkpoint's classes must have different names where"
                f" folders are known by them, got {name!r} for classes"
                f" {' and '.join(places)}: --class_map must give their numbers"
            )
        return names.index(name)

    def _numbered(self, folders: Sequence[str], say: bool) -> list[int]:
        """Folders named 0, 1, 2: places among ImageNet's sorted names.

        As text, 10 comes before 2: the order of the folders means nothing.
        """
        if self.names is not None and not class_order.are_synsets(self.names):
            raise ValueError(self._unknown(folders))
        numbers = [int(folder) for folder in folders]
        for folder, number in zip(folders, numbers, strict=True):
            if number >= self.count:
                raise ValueError(
                    "eval: class folders named by number must be named from 0"
                    f" to {self.count - 1}, for the network's classes, got"
                    f" {folder}"
                )
        if self.names is None:
            if say:
                print(
                    "the checkpoint does not name its classes: class folder N"
                    " is taken to be its class N, from 0",
                    file=sys.stderr,
                )
            return numbers
        places = {name: place for place, name in enumerate(self.names)}
        in_order = sorted(self.names)
        return [places[in_order[number]] for number in numbers]

    def _unknown(self, folders: Sequence[str]) -> str:
        start = "eval: class folders must be known to be classes of the network"
        if self.names is None:
            return (
                f"{start}, got {data.first_few(folders)} beside a checkpoint"
                f" that does not name its {self.count} classes: --class_map"
                " must name a folder that has them all, such as ImageNet's"
                " train or val, or a JSON file of class folders and numbers"
            )
        others = [name for name in folders if name not in set(self.names)]
        return (
            f"{start}, got {data.first_few(others)}, where its classes are"
            f" {data.first_few(self.names)}: --class_map must name a JSON file"
            " of class folders and classes, or --data_dir another folder"
        )
