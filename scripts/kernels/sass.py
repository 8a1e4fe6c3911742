"""Machine code, as `nvdisasm -c -gi` prints it (code compiled with -lineinfo), and the innermost loops around its matrix instructions."""

import re
from dataclasses import dataclass, field

MATRIX = ("HMMA", "HGMMA")


@dataclass
class Instruction:
    opcode: str
    labels: list  # that it may go to
    falls: bool  # to the next instruction
    where: tuple  # (file, line), from where it stands to the kernel

    def is_matrix(self):
        return self.opcode.split(".")[0] in MATRIX


@dataclass
class Code:
    instructions: list = field(default_factory=list)
    places: dict = field(default_factory=dict)  # of labels: numbers of instructions

    def innermost_loops(self):
        """The instructions of every loop that has matrix instructions, but none in a loop inside of it.

        Loops are where control flow comes back, wherever the compiler put their parts: strongly connected components; loops inside
        of them are those of what is left without the edges to where they are entered.
        """
        edges = [set() for _ in self.instructions]
        for number, one in enumerate(self.instructions):
            edges[number] |= {self.places[label] for label in one.labels}
            if one.falls and number + 1 < len(edges):
                edges[number].add(number + 1)
        found, todo = [], [(set(range(len(edges))), set())]
        while todo:
            nodes, entries = todo.pop()
            inner = {n: [m for m in edges[n] if m in nodes and m not in entries] for n in nodes}
            loops = [c for c in components(inner) if any(self.instructions[n].is_matrix() for n in c)]
            if not loops and entries:
                found.append([self.instructions[n] for n in sorted(nodes)])
            for loop in loops:
                entered = {m for n in range(len(edges)) if n not in loop for m in edges[n] if m in loop}
                todo.append((loop, entered or {min(loop)}))
        return sorted(found, key=lambda loop: loop[0].where[::-1])


def components(edges):
    """Strongly connected components with a cycle, of {node: successors}: Tarjan's algorithm without recursion."""
    numbers, lowest, stack, held, found = {}, {}, [], set(), []
    for root in edges:
        if root in numbers:
            continue
        path = [(root, iter(edges[root]))]
        while path:
            node, successors = path[-1]
            if node not in numbers:
                numbers[node] = lowest[node] = len(numbers)
                stack.append(node)
                held.add(node)
            for other in successors:
                if other not in numbers:
                    path.append((other, iter(edges[other])))
                    break
                if other in held:
                    lowest[node] = min(lowest[node], numbers[other])
            else:
                path.pop()
                if path:
                    above = path[-1][0]
                    lowest[above] = min(lowest[above], lowest[node])
                if lowest[node] == numbers[node]:
                    component = set()
                    while node not in component:
                        component.add(stack.pop())
                    held -= component
                    if len(component) > 1 or node in edges[node]:
                        found.append(component)
    return found


# A guard of @!PT, never, is of instructions that only keep others apart: they are left out.
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(@!?U?P\w+)?\s*([A-Z][\w.]*)\s*(.*?)\s*;")
FRAME = re.compile(r'//## File ".*?([^/"]+)", line (\d+)')
LABEL = re.compile(r"\.L_x?_?\w+")


def codes(text, wanted):
    """{kernel: Code} of the kernels whose names `wanted` accepts."""
    found, code, where, is_open = {}, None, (), False
    for line in text.splitlines():
        if line.startswith(".text."):
            name = line[len(".text.") :].rstrip(":")
            code = found.setdefault(name, Code()) if wanted(name) else None
        elif line.startswith("\t.section"):
            code = None
        elif code is None:
            continue
        elif frame := FRAME.search(line):
            where, is_open = (where if is_open else ()) + ((frame[1], int(frame[2])),), True
        elif match := INSTRUCTION.match(line):
            is_open = False
            if match[1] != "@!PT":
                code.instructions.append(instruction(match, where))
        elif line.endswith(":"):
            code.places[line.strip(" \t:")] = len(code.instructions)
    return found


def instruction(match, where):
    guard, opcode, operands = match[1], match[2], match[3]
    name = opcode.split(".")[0]
    # A barrier's end is named where it begins, and stands right behind where its threads wait; a call comes back.
    labels = [] if name in ("BSSY", "CALL") else LABEL.findall(operands)
    always = guard is None and (name in ("EXIT", "RET", "BRX") or (name == "BRA" and re.fullmatch(r"`\(\S+\)", operands) is not None))
    return Instruction(opcode, labels, not always, where)
