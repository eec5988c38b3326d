"""What can be wrong with items, their reservations and their owners."""

from tests.system.audit.corruption import ELSEWHERE, Corruption

DAMAGE_TO_ITEMS = [
    Corruption(
        "V12",
        "a deposit twice",
        "INSERT INTO deposits SELECT * FROM deposits WHERE logical_time = 77",
        f"deposit {77:064x}",
    ),
    Corruption(
        "V12",
        "an intake twice",
        "INSERT INTO intakes SELECT * FROM intakes WHERE nft_id = {held}",
        "intake message-{held}",
    ),
    Corruption("V12", "a gift in custody twice", "UPDATE nfts SET gift_id = {sold} WHERE id = {held}", "gift {sold}"),
    Corruption("V13", "listed without a price", "UPDATE nfts SET price_nano = NULL WHERE id = {listed}", "{listed}"),
    Corruption("V13", "listed without a rate", "UPDATE nfts SET fee_bp = NULL WHERE id = {listed}", "{listed}"),
    Corruption(
        "V13", "priced and not listed", "UPDATE nfts SET price_nano = 1, fee_bp = 1 WHERE id = {held}", "{held}"
    ),
    Corruption("V13", "owned by nobody", "UPDATE nfts SET owner_id = NULL WHERE id = {held}", "{held}"),
    Corruption("V13", "external and owned", "UPDATE nfts SET owner_id = 1 WHERE id = {external}", "{external}"),
    Corruption("V13", "reserved by nothing", "UPDATE nfts SET state = 'in_bundle' WHERE id = {held}", "{held}"),
    Corruption("V13", "free and reserved", "UPDATE nfts SET state = 'held' WHERE id = {auctioned}", "{auctioned}"),
    Corruption(
        "V14",
        "reserved by no auction",
        f"UPDATE nfts SET reserved_by = '{ELSEWHERE}' WHERE id = {{auctioned}}",
        "{auctioned}",
    ),
    Corruption("V14", "an auction without item", "UPDATE nfts SET state = 'held' WHERE id = {auctioned}", "{auction}"),
    Corruption(
        "V14", "another's auction", "UPDATE auctions SET seller_id = {bob} WHERE id = '{auction}'", "{auctioned}"
    ),
    Corruption(
        "V14",
        "two auctions",
        "UPDATE auctions SET nft_id = {auctioned}, state = 'active' WHERE id = '{won_auction}'",
        "{auctioned}",
    ),
    Corruption(
        "V16", "reserved by no return", "UPDATE returns SET state = 'failed' WHERE id = '{return}'", "{returning}"
    ),
    Corruption("V16", "a return without its item", "UPDATE nfts SET state = 'held' WHERE id = {returning}", "{return}"),
    Corruption("V16", "another's return", "UPDATE returns SET user_id = {bob} WHERE id = '{return}'", "{return}"),
    Corruption(
        "V17", "an offer on a reserved item", "UPDATE nfts SET state = 'on_auction' WHERE id = {offered}", "{offer}"
    ),
    Corruption("V17", "an offer to oneself", "UPDATE nfts SET owner_id = {bob} WHERE id = {offered}", "{offer}"),
    Corruption("V17", "an offer to another", "UPDATE offers SET owner_id = {carol} WHERE id = '{offer}'", "{offer}"),
    Corruption("V17", "an offer on nothing", "DELETE FROM nfts WHERE id = {offered}", "{offer}"),
    Corruption(
        "V17",
        "two offers of one",
        "UPDATE offers SET nft_id = {offered}, state = 'open' WHERE id = '{accepted}'",
        "{offer}",
    ),
    Corruption(
        "V18",
        "another's item in a trade",
        "UPDATE nfts SET owner_id = {bob} WHERE id = {traded}",
        "{trade} {traded}",
    ),
    Corruption(
        "V18",
        "a reserved item in a proposal",
        "UPDATE nfts SET state = 'on_auction' WHERE id = {given}",
        "{proposal} {given}",
    ),
    Corruption(
        "V18", "a proposal to a closed trade", "UPDATE trades SET state = 'closed' WHERE id = '{trade}'", "{proposal}"
    ),
    Corruption("V18", "a trade of nothing", "DELETE FROM trade_items WHERE trade_id = '{trade}'", "{trade}"),
    Corruption(
        "V18",
        "an item of a trade that is over",
        "UPDATE trade_items SET closed_at = NULL WHERE trade_id = '{swapped_trade}'",
        "{swapped_trade} {swapped}",
    ),
    Corruption("V27", "an owner by no path", "UPDATE nfts SET owner_id = {carol} WHERE id = {held}", "{held}"),
    Corruption("V27", "sold by another", "UPDATE deals SET seller_id = {carol} WHERE id = '{deal}'", "{sold}"),
    Corruption(
        "V27",
        "sold twice by one owner",
        "INSERT INTO deal_items SELECT deal_id, {given}, {given}, 1, 'to_buyer' FROM deal_items WHERE nft_id = {sold}",
        "{given}",
    ),
    Corruption("V27", "a transfer lost", "UPDATE commands SET status = 'rejected' WHERE id = '{transfer}'", "{given}"),
    Corruption("V27", "an intake lost", "DELETE FROM intakes WHERE nft_id = {held}", "{held}"),
    Corruption("V27", "an item lost", "DELETE FROM nfts WHERE id = {held}", "{held}"),
    Corruption(
        "V27",
        "returned and still here",
        "UPDATE nfts SET state = 'held', owner_id = {alice} WHERE id = {external}",
        "{external}",
    ),
    Corruption(
        "V27",
        "half of a swap",
        "DELETE FROM deal_items WHERE direction = 'to_seller'",
        "50",
    ),
    Corruption(
        "V27",
        "a delivery to another",
        "UPDATE nfts SET owner_id = {alice} WHERE id = {delivered_item}",
        "{delivered_item}",
    ),
]
