import Foundation
import Testing

@testable import AdaLLaVA

/// Where huggingface_hub 0.2x and later keep what they download (`huggingface_hub/constants.py`).
@Suite struct HuggingFaceCacheTests {
    @Test("The cache is where the environment says", arguments: [
        (["HOME": "/h"], "/h/.cache/huggingface/hub"), (["HOME": "/h", "HF_HOME": ""], "/h/.cache/huggingface/hub"),
        (["HOME": "/h", "XDG_CACHE_HOME": "/x"], "/x/huggingface/hub"), (["HOME": "/h", "XDG_CACHE_HOME": "/x", "HF_HOME": "/f"], "/f/hub"),
        (["HOME": "/h", "HF_HOME": "~/f"], "/h/f/hub"), (["HOME": "/h", "HF_HOME": "/f", "HF_HUB_CACHE": "/c"], "/c"),
        (["HOME": "/h", "HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "/old"], "/old"),
    ] as [([String: String], String)])
    func root(environment: [String: String], path: String) {
        #expect(HuggingFaceCache.root(in: environment).path == path)
    }
}
