#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""usage: docs.py

Is the documentation as right as a machine can tell? One line for each thing that is wrong, and status 1 if there is any.

- Man pages are without warnings (man; mandoc where it is installed), have the sections that a reader looks for, and refer to
  pages that exist.
- The examples of the library's and the device's pages are whole programs that compile without warnings. They are left in
  build/docs, named after their pages; libpaste must have been built.
- Code elsewhere in these pages, and C in the README, is that of tools/examples.
- Commands - in the pages of the tools, in TUNING and TRACEPOINTS, in the README - are something that a shell can parse.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

top = pathlib.Path(__file__).resolve().parent.parent
out = top / "build/docs"
examples = top / "tools/examples"
pages = sorted(p for d in ("lib/man", "tools") for p in (top / d).rglob("*.[1-8]"))
problems = []


def problem(where, text):
    problems.append(f"{where.relative_to(top)}: {text}")


def run(*command):
    env = dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80")
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def names(page):
    """What a page is about: paste_open(3) has paste_pool too."""
    line = re.search(r"^\.SH NAME\n(.*) \\- ", page.read_text(), re.M)
    return {(name, page.suffix[1:]) for name in line.group(1).split(", ")} if line else set()


def sections(page):
    parts = re.split(r'^\.SH "?([A-Z ]+?)"?$', page.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def code_blocks(text):
    """What is between .EX and .EE, as it would be read."""
    for block in re.findall(r"^\.EX\n(.*?)^\.EE$", text, re.M | re.S):
        yield block.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")


def check_format(page):
    # -Z: with the text, man would drop groff's warnings
    warnings = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)).stderr
    if shutil.which("mandoc"):
        warnings += run("mandoc", "-T", "lint", "-W", "error", str(page)).stdout
    for line in warnings.splitlines():
        problem(page, line)


def check_tabs(page):
    """A table leaves tab stops of its own behind."""
    for before, block in re.findall(r"^(.*)\n\.EX\n((?:.*\n)*?)\.EE$", page.read_text(), re.M):
        if "\t" in block and before != ".ta T 4n":
            problem(page, f"no .ta T 4n before this example:\n{block}")


def check_sections(page):
    have = sections(page)
    for wanted in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLE|EXAMPLES", "ERRORS|EXIT STATUS", "SEE ALSO"):
        if not have.keys() & set(wanted.split("|")):
            problem(page, f"no section {wanted}")


def check_references(page, ours):
    for name, section in re.findall(r"^\.BR ([a-z]\w+) \(([1-8])\)", page.read_text(), re.M):
        if re.match(r"(lib)?paste|phttpd", name) and (name, section) not in ours:
            problem(page, f"no page {name}({section})")


def compile_example(page, code):
    source = out / f"{page.name}.c"
    source.write_text(code)
    flags = f"-std=gnu11 -O1 -Wall -Wextra -Werror -I{top}/lib -I{top}/uapi".split()
    libraries = [str(top / "build/lib/libpaste.a"), "-lbpf", "-lpthread"]
    done = run(os.environ.get("CC", "cc"), *flags, "-o", str(source.with_suffix("")), str(source), *libraries)
    if done.returncode:
        problem(page, f"its example does not compile:\n{done.stderr}")


def check_shell(where, blocks):
    for commands in blocks:
        done = run("bash", "-n", "-c", commands)
        if done.returncode:
            problem(where, done.stderr)


def squeeze(code):
    return " ".join(code.split())


def check_code(page, known):
    parts = sections(page)
    programs = list(code_blocks(parts.pop("EXAMPLE", "")))
    if len(programs) != 1 or "int main(" not in programs[0]:
        problem(page, "no program as its example")
    else:
        compile_example(page, programs[0])
    for section in ("TUNING", "TRACEPOINTS"):
        check_shell(page, code_blocks(parts.pop(section, "")))
    for block in code_blocks("\n".join(parts.values())):
        if not any(squeeze(block) in source for source in known):
            problem(page, f"this is not in {examples.relative_to(top)}:\n{block}")


def check_readme():
    """The smallest program is shown there and in libpaste(7)."""
    hello = (examples / "hello.c").read_text().partition(" */\n")[2]
    page = top / "lib/man/libpaste.7"
    if hello not in code_blocks(sections(page).get("EXAMPLE", "")):
        problem(page, "its example is not hello.c")
    readme = top / "README.md"
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", readme.read_text(), re.M | re.S)
    if [text for kind, text in blocks if kind == "c"] != [hello]:
        problem(readme, "its C is not hello.c")
    check_shell(readme, (text for kind, text in blocks if kind == "sh"))


def main():
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    out.mkdir(parents=True, exist_ok=True)
    known = [squeeze(source.read_text()) for source in examples.glob("*.c")]
    ours = set().union(*map(names, pages))
    for page in pages:
        check_format(page)
        check_tabs(page)
        check_sections(page)
        check_references(page, ours)
        if page.suffix in (".3", ".4", ".7"):
            check_code(page, known)
        else:
            check_shell(page, code_blocks(sections(page).get("EXAMPLES", "")))
    check_readme()
    for text in problems:
        print(text)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
