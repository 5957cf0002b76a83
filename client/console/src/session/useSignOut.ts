import { useAccess, useSite } from "../site";

/** Return the function that signs out; null if the page cannot. */
export function useSignOut(): (() => Promise<void>) | null {
  const { session } = useSite();
  const { signOut } = useAccess();
  return (
    signOut &&
    (async () => {
      await signOut();
      session.end();
    })
  );
}
