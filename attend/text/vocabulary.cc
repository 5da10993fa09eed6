#include <attend/text/vocabulary.h>

#include <attend/core/error.h>
#include <attend/io/file.h>

#include <algorithm>
#include <numeric>
#include <tuple>

namespace attend::text {

namespace {

/// ASCII only: enough to notice "learning" for "Learning".
std::string lower(std::string_view word) {
    std::string result(word);
    for (char& c : result) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return result;
}

/// Code points, so that a character counts once; bytes that are not UTF-8 count as they are.
std::u32string code_points(std::string_view text) {
    std::u32string result;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if ((byte & 0xC0U) == 0x80U && !result.empty()) {
            result.back() = (result.back() << 6U) | (byte & 0x3FU);
        } else {
            result.push_back(byte);
        }
    }
    return result;
}

/// The fewest insertions, deletions, replacements and exchanges of neighbours (optimal string alignment).
std::size_t edit_distance(const std::u32string& a, const std::u32string& b) {
    std::vector<std::size_t> before(b.size() + 1);
    std::vector<std::size_t> above(b.size() + 1);
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 1; i <= a.size(); ++i) {
        before.swap(above);
        above.swap(row);
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            row[j] = std::min({above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1), above[j] + 1, row[j - 1] + 1});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = std::min(row[j], before[j - 2] + 1);
        }
    }
    return row[b.size()];
}

}  // namespace

Vocabulary::Vocabulary(const std::vector<std::pair<std::string, std::int64_t>>& words) {
    indices_.reserve(words.size());
    for (const auto& [word, index] : words) {
        if (index < 0) {
            throw ValueError("vocabulary",
                             "expected indices of at least 0, found " + std::to_string(index) + " for '" + word + "'");
        }
        if (!indices_.emplace(word, index).second) {
            throw ValueError("vocabulary", "expected each word once, found '" + word + "' twice");
        }
    }
}

Vocabulary Vocabulary::article() {
    const std::vector<std::string> words{"I",        "Like",   "AI",        "And",        "Machine",   "Learning",
                                         "Data",     "Model",  "Code",      "Algorithms", "Python",    "Research",
                                         "Robots",   "Deep",   "Networks",  "Compute",    "Vision",    "Tools",
                                         "Projects", "Neural", "Knowledge", "Automation", "Innovation"};
    std::vector<std::pair<std::string, std::int64_t>> indexed;
    std::int64_t index = 0;
    for (const std::string& word : words) indexed.emplace_back(word, ++index);
    return Vocabulary(indexed);
}

Vocabulary Vocabulary::from_json_file(const std::string& path) {
    const MappedFile file = MappedFile::open(path);
    check_fetched(file);
    return from_json({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path);
}

std::optional<std::int64_t> Vocabulary::find(const std::string& word) const {
    const auto entry = indices_.find(word);
    return entry == indices_.end() ? std::nullopt : std::optional(entry->second);
}

std::vector<std::string> Vocabulary::words() const {
    std::int64_t largest = -1;
    for (const auto& [word, index] : indices_) largest = std::max(largest, index);
    if (largest >= 16 * (size() + 1)) {  // before anything is added to it: it may be the largest number there is
        throw ValueError("Vocabulary", "expected indices below 16 times the number of words, " +
                                           std::to_string(size()) + ", found " + std::to_string(largest));
    }
    std::vector<std::string> found(static_cast<std::size_t>(largest + 1));
    std::vector<bool> taken(found.size());
    for (const auto& [word, index] : indices_) {
        const auto at = static_cast<std::size_t>(index);
        if (taken[at]) {
            const auto& [first, second] = std::minmax(found[at], word);
            throw ValueError("Vocabulary", "expected one word of each id, found " + std::to_string(index) + " of '" +
                                               first + "' and of '" + second + "'");
        }
        taken[at] = true;
        found[at] = word;
    }
    return found;
}

std::int64_t Vocabulary::index_of(const std::string& word) const {
    const auto found = indices_.find(word);
    if (found != indices_.end()) return found->second;
    std::string message = "expected words of the dictionary, found '" + word + "'";
    std::string names;
    for (const std::string& near : nearest(word)) names.append(names.empty() ? "'" : ", '").append(near).append("'");
    if (!names.empty()) message += "; the nearest it has: " + names;
    throw ValueError("vocabulary", message);
}

std::vector<std::string> Vocabulary::nearest(const std::string& word, std::size_t count) const {
    // A word that is a line long is no misspelling; its beginning will do.
    constexpr std::size_t kLongest = 64;
    const std::u32string exact = code_points(std::string_view(word).substr(0, kLongest));
    const std::u32string folded = code_points(lower(std::string_view(word).substr(0, kLongest)));
    std::vector<std::tuple<std::size_t, std::size_t, std::string>> candidates;
    candidates.reserve(indices_.size());
    for (const auto& [known, index] : indices_) {
        const std::string_view beginning = std::string_view(known).substr(0, kLongest);
        candidates.emplace_back(edit_distance(folded, code_points(lower(beginning))),
                                edit_distance(exact, code_points(beginning)), known);
    }
    const std::size_t kept = std::min(count, candidates.size());
    std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(kept), candidates.end());
    std::vector<std::string> result;
    for (std::size_t i = 0; i < kept; ++i) result.push_back(std::get<2>(candidates[i]));
    return result;
}

std::vector<std::string> split_at_spaces(std::string_view sentence) {
    std::vector<std::string> words;
    std::size_t begin = 0;
    for (;;) {
        const std::size_t end = sentence.find(' ', begin);
        words.emplace_back(sentence.substr(begin, end - begin));
        if (end == std::string_view::npos) return words;
        begin = end + 1;
    }
}

}  // namespace attend::text
