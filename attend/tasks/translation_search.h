/// @file
/// Which search a folder and its options ask for.
#pragma once

#include <attend/search/search.h>
#include <attend/tasks/translation_folder.h>
#include <attend/tasks/translator.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace attend {

/// Makes the search of a source of so many tokens, its end included.
using MakeSearch = std::function<std::unique_ptr<search::Search>(std::int64_t)>;

/// How a folder's sources are searched.
struct TranslationSearch {
    MakeSearch make = {};      ///< of a source
    std::int64_t most = 1;     ///< hypotheses that it finds at most
    bool follows_one = false;  ///< a single one from step to step: what it goes on with is what it finds
};

/// Marian's search for Mozilla's folders, Transformers' for Hugging Face's.
/// @throws ValueError for options of the other family, or that make no search
TranslationSearch translation_search(const TranslationFolder& folder, const TranslationOptions& options);

}  // namespace attend
