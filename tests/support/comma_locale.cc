#include "tests/support/comma_locale.h"

#include <array>
#include <clocale>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace attend::testing {

namespace {

struct Comma : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
};

/// glibc's category of numbers as localedef writes it: a magic number, the number of fields, where they begin, and the
/// fields: point, thousands separator, grouping, both as wide characters, encoding.
void write_numbers(const std::filesystem::path& path) {
    const std::array<std::uint32_t, 8> head{0x20031114, 6, 32, 34, 35, 36, 40, 44};
    const std::array<std::uint32_t, 2> wide{',', 0};
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(head.data()), sizeof head);
    file.write(",\0\0\0", 4);
    file.write(reinterpret_cast<const char*>(wide.data()), sizeof wide);
    file.write("UTF-8", 6);
}

}  // namespace

CommaLocale::CommaLocale()
    : before_(std::setlocale(LC_NUMERIC, nullptr)),
      streams_before_(std::locale::global(std::locale(std::locale::classic(), new Comma))) {
    std::filesystem::create_directories(folder_.path("comma"));
    write_numbers(folder_.path("comma/LC_NUMERIC"));
    const char* path = std::getenv("LOCPATH");
    const std::string path_before = path == nullptr ? "" : path;
    ::setenv("LOCPATH", folder_.path("").c_str(), 1);
    for (const char* name : {"comma", "de_DE.UTF-8", "fr_FR.UTF-8"}) {
        if (std::setlocale(LC_NUMERIC, name) != nullptr) break;
    }
    if (path == nullptr) {
        ::unsetenv("LOCPATH");
    } else {
        ::setenv("LOCPATH", path_before.c_str(), 1);
    }
}

CommaLocale::~CommaLocale() {
    std::locale::global(streams_before_);
    std::setlocale(LC_NUMERIC, before_.c_str());
}

bool CommaLocale::holds_for_c() const {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), "%.1f", 0.5);
    return text[1] == ',';
}

}  // namespace attend::testing
